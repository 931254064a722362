// The scripted engine for the sidecar: a script comes as packed arrays, and a whole run is one call.
#include <errno.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <new>
#include <string>

#include "python_module.hpp"
#include "scripted.hpp"

namespace bench::python {
namespace {

constexpr const char* kCapsule = "bench_ring.Scripted";

ScriptedEngine* engine_of(PyObject* capsule) {
  return static_cast<ScriptedEngine*>(PyCapsule_GetPointer(capsule, kCapsule));
}

void destroy(PyObject* capsule) { delete engine_of(capsule); }

// The items of a packed array; false with a Python error set.
template <typename Item>
bool unpack(PyObject* bytes, std::vector<Item>* out) {
  char* data = nullptr;
  Py_ssize_t size = 0;
  if (PyBytes_AsStringAndSize(bytes, &data, &size) != 0) return false;
  if (size % static_cast<Py_ssize_t>(sizeof(Item)) != 0) {
    PyErr_Format(PyExc_ValueError, "%zd bytes are not whole items of %zd", size, static_cast<Py_ssize_t>(sizeof(Item)));
    return false;
  }
  out->resize(static_cast<std::size_t>(size) / sizeof(Item));
  if (size > 0) std::memcpy(out->data(), data, static_cast<std::size_t>(size));
  return true;
}

// Whether the lists that a request points into hold what its events need.
bool is_sound(const ScriptedRequest& request, const Script& script) {
  const std::uint64_t events = request.events;
  const bool has_gaps = request.first_gap != ScriptedRequest::kNone;
  const bool has_counts = request.first_count != ScriptedRequest::kNone;
  if (events == 0) return !has_gaps && !has_counts;
  return (!has_gaps || request.first_gap + events - 1 <= script.gaps_ns.size()) &&
         (!has_counts || request.first_count + events <= script.counts.size());
}

// Writes all of `text`; false with errno set.
bool write_all(int fd, const std::string& text) {
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t wrote = write(fd, text.data() + done, text.size() - done);
    if (wrote < 0 && errno != EINTR) return false;
    if (wrote > 0) done += static_cast<std::size_t>(wrote);
  }
  return true;
}

// The rows of a run in truth.csv: one for each token, from the event's first.
class TruthFile {
 public:
  TruthFile(int fd, const char* run) : fd_(fd), run_(run) {}

  // Appends up to `most` events that are not written yet. After an error nothing more is written.
  void append(const std::vector<Truth>& truth, std::size_t most) {
    constexpr std::size_t kFlushBytes = 1 << 16;
    std::string text;
    const std::size_t end = most < truth.size() - written_ ? written_ + most : truth.size();
    while (error_ == 0 && written_ < end) {
      add_rows(truth[written_++], &text);
      if (text.size() < kFlushBytes && written_ < end) continue;
      if (!write_all(fd_, text)) error_ = errno;
      text.clear();
    }
  }

  // Why a write has failed; 0 if none has.
  int error() const noexcept { return error_; }

 private:
  void add_rows(const Truth& event, std::string* text) {
    if (event.request >= tokens_.size()) tokens_.resize(event.request + 1, 0);
    for (std::uint32_t i = 0; i < event.tokens; ++i) {
      char numbers[96];
      std::snprintf(numbers, sizeof numbers, ",%u,%u,%llu,%llu\n", event.request, tokens_[event.request]++,
                    static_cast<unsigned long long>(event.intended_ns),
                    static_cast<unsigned long long>(event.emitted_ns));
      text->append(run_).append(numbers);
    }
  }

  int fd_;
  std::string run_;
  std::size_t written_ = 0;            // events
  std::vector<std::uint32_t> tokens_;  // written so far, by request
  int error_ = 0;
};

// Events that are written in one idle time: they take a few milliseconds.
constexpr std::size_t kEventsInIdle = 10'000;

}  // namespace

// scripted_new(requests, gaps_ns, counts, faults) -> engine
PyObject* scripted_new(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (!has_arguments("scripted_new", n, 4)) return nullptr;
  Script script;
  if (!unpack(args[0], &script.requests) || !unpack(args[1], &script.gaps_ns) || !unpack(args[2], &script.counts) ||
      !unpack(args[3], &script.faults)) {
    return nullptr;
  }
  if (script.requests.empty()) return PyErr_Format(PyExc_ValueError, "a script without requests");
  for (const ScriptedRequest& request : script.requests) {
    if (!is_sound(request, script)) return PyErr_Format(PyExc_ValueError, "a request's lists are shorter than its events");
  }
  return PyCapsule_New(new ScriptedEngine(std::move(script)), kCapsule, destroy);
}

// scripted_stage(engine, lengths) -> None: prompt and output tokens of each request, as 32-bit pairs
PyObject* scripted_stage(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (!has_arguments("scripted_stage", n, 2)) return nullptr;
  ScriptedEngine* engine = engine_of(args[0]);
  std::vector<ScriptedEngine::Lengths> lengths;
  if (engine == nullptr || !unpack(args[1], &lengths)) return nullptr;
  try {
    engine->stage(std::move(lengths));
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
  return Py_BuildValue("");
}

// scripted_run(engine, events, requests, stepped, fd, run) -> (end, stepping_ns, refused handles as 32-bit numbers)
// Appends the tokens of the run, as they were meant and emitted, to the file `fd`: in long gaps and at the end, so that an
// engine which is killed while it waits has written what it did.
// Runs without the interpreter's lock: the sidecar's other thread notices the harness's death.
PyObject* scripted_run(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (!has_arguments("scripted_run", n, 6)) return nullptr;
  ScriptedEngine* engine = engine_of(args[0]);
  Side* events = side_of(args[1]);
  Side* requests = side_of(args[2]);
  const long stepped = PyLong_AsLong(args[3]);
  const long fd = PyLong_AsLong(args[4]);
  const char* run = PyUnicode_AsUTF8AndSize(args[5], nullptr);
  if (engine == nullptr || events == nullptr || requests == nullptr || PyErr_Occurred() != nullptr) return nullptr;
  PyThreadState* state = PyEval_SaveThread();
  TruthFile file(static_cast<int>(fd), run);
  const auto end = engine->run(events->ring->tap, requests->ring->consumer, stepped != 0,
                               [&] { file.append(engine->truth(), kEventsInIdle); });
  file.append(engine->truth(), engine->truth().size());
  PyEval_RestoreThread(state);
  if (file.error() != 0) {
    errno = file.error();
    return PyErr_SetFromErrno(PyExc_OSError);
  }
  const auto& refused = engine->refused();
  PyObject* handles = PyBytes_FromStringAndSize(reinterpret_cast<const char*>(refused.data()),
                                                static_cast<Py_ssize_t>(refused.size() * sizeof refused[0]));
  if (handles == nullptr) return nullptr;
  // "N" hands `handles` over.
  return Py_BuildValue("(iKN)", static_cast<int>(end), static_cast<unsigned long long>(engine->stepping_ns()), handles);
}

}  // namespace bench::python
