// The record of a step of vLLM, read from vLLM's own objects: in C++, since this happens between any two steps, with caches full of
// the model, where Python code for the same takes tens of microseconds.
#include <algorithm>
#include <cstring>
#include <limits>

#include "bench_protocol.h"
#include "python_module.hpp"

namespace bench::python {
namespace {

// How long the records of a step wait for room. Without them the run cannot end.
constexpr std::uint64_t kRoomLimitNs = 30'000'000'000;

// An owned reference, or none.
class Object {
 public:
  explicit Object(PyObject* owned) noexcept : object_(owned) {}
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  ~Object() {
    if (object_ != nullptr) Py_DecRef(object_);
  }
  PyObject* get() const noexcept { return object_; }
  explicit operator bool() const noexcept { return object_ != nullptr; }

 private:
  PyObject* object_;
};

// The attribute names of vLLM's SchedulerOutput, its parts, and SchedulerStats, as Python's own strings.
struct Names {
  PyObject* num_scheduled_tokens = PyUnicode_InternFromString("num_scheduled_tokens");
  PyObject* total_num_scheduled_tokens = PyUnicode_InternFromString("total_num_scheduled_tokens");
  PyObject* scheduled_new_reqs = PyUnicode_InternFromString("scheduled_new_reqs");
  PyObject* scheduled_cached_reqs = PyUnicode_InternFromString("scheduled_cached_reqs");
  PyObject* preempted_req_ids = PyUnicode_InternFromString("preempted_req_ids");
  PyObject* req_id = PyUnicode_InternFromString("req_id");
  PyObject* req_ids = PyUnicode_InternFromString("req_ids");
  PyObject* num_output_tokens = PyUnicode_InternFromString("num_output_tokens");
  PyObject* resumed_req_ids = PyUnicode_InternFromString("resumed_req_ids");
  PyObject* num_running_reqs = PyUnicode_InternFromString("num_running_reqs");
  PyObject* num_waiting_reqs = PyUnicode_InternFromString("num_waiting_reqs");
  PyObject* num_skipped_waiting_reqs = PyUnicode_InternFromString("num_skipped_waiting_reqs");
  PyObject* kv_cache_usage = PyUnicode_InternFromString("kv_cache_usage");
};

const Names& names() {
  static const Names all;
  return all;
}

// A count that fills its field rather than wrap around in it.
template <typename Field>
Field clamped(long long value) noexcept {
  return static_cast<Field>(std::clamp<long long>(value, 0, std::numeric_limits<Field>::max()));
}

// A whole number; false with a Python error set.
bool read_number(PyObject* owner, PyObject* name, long long* out) {
  const Object value(PyObject_GetAttr(owner, name));
  if (!value) return false;
  *out = PyLong_AsLong(value.get());
  return *out != -1 || PyErr_Occurred() == nullptr;
}

// The same of an attribute that not every version of vLLM has: 0 without it.
bool read_number_if_there(PyObject* owner, PyObject* name, long long* out) {
  *out = 0;
  if (read_number(owner, name, out)) return true;
  if (PyErr_ExceptionMatches(PyExc_AttributeError) == 0) return false;
  PyErr_Clear();
  return true;
}

// How many a set holds; 0 for None, or where this version of vLLM has no such attribute.
bool read_size_if_there(PyObject* owner, PyObject* name, long long* out) {
  *out = 0;
  const Object value(PyObject_GetAttr(owner, name));
  if (!value) {
    if (PyErr_ExceptionMatches(PyExc_AttributeError) == 0) return false;
    PyErr_Clear();
    return true;
  }
  if (value.get() == &_Py_NoneStruct) return true;
  *out = PyObject_Size(value.get());
  return *out >= 0;
}

// What a step computed for its requests in prefill.
struct Prefill {
  long long requests = 0;
  long long tokens = 0;

  // Takes a request by its id and the scheduled tokens of all; false with a Python error set.
  bool add(PyObject* id, PyObject* tokens_by_id) {
    PyObject* scheduled = PyDict_GetItemWithError(tokens_by_id, id);  // borrowed; null without an error if it is missing
    const long long count = scheduled == nullptr ? 0 : PyLong_AsLong(scheduled);
    if (PyErr_Occurred() != nullptr) return false;
    ++requests;
    tokens += count;
    return true;
  }
};

bool add_new(PyObject* scheduled, PyObject* tokens_by_id, Prefill* prefill) {
  const Object requests(PyObject_GetAttr(scheduled, names().scheduled_new_reqs));
  const Py_ssize_t n = requests ? PyList_Size(requests.get()) : -1;
  for (Py_ssize_t i = 0; i < n; ++i) {
    const Object id(PyObject_GetAttr(PyList_GetItem(requests.get(), i), names().req_id));
    if (!id || !prefill->add(id.get(), tokens_by_id)) return false;
  }
  return n >= 0;
}

// Of the requests that ran before, those without an output token, and those that are taken up again after a preemption.
bool add_cached(PyObject* scheduled, PyObject* tokens_by_id, Prefill* prefill) {
  const Object cached(PyObject_GetAttr(scheduled, names().scheduled_cached_reqs));
  if (!cached) return false;
  const Object made(PyObject_GetAttr(cached.get(), names().num_output_tokens));
  const Object resumed(PyObject_GetAttr(cached.get(), names().resumed_req_ids));
  const Py_ssize_t n = made ? PyList_Size(made.get()) : -1;
  const Py_ssize_t num_resumed = resumed ? PyObject_Size(resumed.get()) : -1;
  if (n < 0 || num_resumed < 0) return false;
  for (Py_ssize_t i = 0; i < n; ++i) {
    const long count = PyLong_AsLong(PyList_GetItem(made.get(), i));
    if (count == -1 && PyErr_Occurred() != nullptr) return false;
    if (count != 0 && num_resumed == 0) continue;
    const Object ids(PyObject_GetAttr(cached.get(), names().req_ids));
    PyObject* id = ids ? PyList_GetItem(ids.get(), i) : nullptr;  // borrowed
    const int is_resumed = id == nullptr ? -1 : PySequence_Contains(resumed.get(), id);
    if (is_resumed < 0) return false;
    if ((count == 0 || is_resumed != 0) && !prefill->add(id, tokens_by_id)) return false;
  }
  return true;
}

// The batch of a SchedulerOutput, split into prefill and decode.
bool read_batch(PyObject* scheduled, bench_step_record* record) {
  const Object tokens_by_id(PyObject_GetAttr(scheduled, names().num_scheduled_tokens));
  Prefill prefill;
  long long tokens = 0;
  long long preemptions = 0;
  const Py_ssize_t requests = tokens_by_id ? PyObject_Size(tokens_by_id.get()) : -1;
  if (requests < 0 || !add_new(scheduled, tokens_by_id.get(), &prefill) ||
      !add_cached(scheduled, tokens_by_id.get(), &prefill) ||
      !read_number(scheduled, names().total_num_scheduled_tokens, &tokens) ||
      !read_size_if_there(scheduled, names().preempted_req_ids, &preemptions)) {
    return false;
  }
  record->prefill_requests = clamped<std::uint16_t>(prefill.requests);
  record->prefill_tokens = clamped<std::uint32_t>(prefill.tokens);
  record->decode_requests = clamped<std::uint16_t>(requests - prefill.requests);
  record->decode_tokens = clamped<std::uint32_t>(tokens - prefill.tokens);
  record->preemptions = clamped<std::uint16_t>(preemptions);
  return true;
}

// Queue lengths and cache use after the step, of a SchedulerStats.
bool read_queues(PyObject* stats, bench_step_record* record) {
  long long running = 0;
  long long waiting = 0;
  long long skipped = 0;
  if (!read_number(stats, names().num_running_reqs, &running) ||
      !read_number(stats, names().num_waiting_reqs, &waiting) ||
      !read_number_if_there(stats, names().num_skipped_waiting_reqs, &skipped)) {
    return false;
  }
  const Object usage(PyObject_GetAttr(stats, names().kv_cache_usage));
  const double share = usage ? PyFloat_AsDouble(usage.get()) : -1.0;
  if (!usage || (share == -1.0 && PyErr_Occurred() != nullptr)) return false;
  record->running = clamped<std::uint16_t>(running);
  record->waiting = clamped<std::uint32_t>(waiting + skipped);
  record->kv_cache_usage_ppm = clamped<std::uint32_t>(static_cast<long long>(share * 1e6 + 0.5));
  return true;
}

// Pushes a step's record and those of the requests that ended in it, together; false with a Python error set.
bool push_together(Side* side, const bench_step_record& step, const bench_record* finishes, std::uint32_t num_finishes) {
  std::vector<bench_record>& records = side->records;
  records.resize(1 + num_finishes);
  std::memcpy(records.data(), &step, sizeof step);
  for (std::uint32_t i = 0; i < num_finishes; ++i) {
    bench_finish_record finish;
    std::memcpy(&finish, &finishes[i], sizeof finish);
    finish.step = step.step;
    std::memcpy(&records[1 + i], &finish, sizeof finish);
  }
  return push_in_the_end(side, records.data(), static_cast<std::uint32_t>(records.size()));
}

}  // namespace

bool push_in_the_end(Side* side, const bench_record* records, std::uint32_t n) {
  if (!side->ring->is_producer) {
    PyErr_Format(PyExc_ValueError, "%s", bench_ring_message(BENCH_RING_WRONG_SIDE));
    return false;
  }
  bench::Producer& producer = side->ring->tap;
  if (producer.has_room(n)) return producer.push(records, n) == n;
  PyThreadState* state = PyEval_SaveThread();  // the sidecar's other thread notices the harness's death
  const bool has_come = producer.push_in_the_end(records, n, kRoomLimitNs);
  PyEval_RestoreThread(state);
  if (!has_come) PyErr_Format(PyExc_OSError, "the event ring is full, and the harness takes nothing out of it");
  return has_come;
}

// step(ring, started_ns, ended_ns, scheduled, stats, finishes) -> whether there was anything to record
// `scheduled` is the SchedulerOutput whose tokens came out of the step, and `stats` the SchedulerStats after it, or None;
// `finishes` are whole finish records.
PyObject* step(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (!has_arguments("step", n, 6)) return nullptr;
  Side* side = side_of(args[0]);
  bench_step_record record{};
  record.kind = BENCH_KIND_STEP;
  record.started_ns = PyLong_AsUnsignedLongLong(args[1]);
  record.ended_ns = PyLong_AsUnsignedLongLong(args[2]);
  const bench_record* finishes = nullptr;
  std::uint32_t num_finishes = 0;
  if (side == nullptr || PyErr_Occurred() != nullptr || !records_in(args[5], &finishes, &num_finishes)) return nullptr;
  const bool is_tapped = side->ring->tap.steps() != side->recorded_steps;
  const std::uint32_t switches = involuntary_switches();
  record.flags = clamped<std::uint16_t>(static_cast<long long>(switches) - side->recorded_switches);
  side->recorded_steps = side->ring->tap.steps();
  side->recorded_switches = switches;
  if (!is_tapped && num_finishes == 0) return Py_BuildValue("i", 0);
  record.step = std::max(side->ring->tap.steps(), 1u) - 1;
  record.tap_push_ns = is_tapped ? side->tap_push_ns : BENCH_UNKNOWN_COUNT;
  record.token_events = is_tapped ? side->ring->tap.events() : 0;
  if ((args[3] != &_Py_NoneStruct && !read_batch(args[3], &record)) ||
      (args[4] != &_Py_NoneStruct && !read_queues(args[4], &record)) ||
      !push_together(side, record, finishes, num_finishes)) {
    return nullptr;
  }
  return Py_BuildValue("i", 1);
}

}  // namespace bench::python
