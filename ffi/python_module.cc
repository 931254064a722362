// The extension module `bench_ring`: the ring and the tap for the sidecar, one call per engine step.
//
// It walks the engine's own lists in C++, since inside a running engine, with cold caches, every call through a
// foreign-function layer and every Python-level loop costs microseconds.
#include "python_module.hpp"

#include <errno.h>
#include <linux/perf_event.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace bench::python {

namespace {

constexpr const char* kCapsule = "bench_ring.Ring";

void destroy(PyObject* capsule) { delete side_of(capsule); }

}  // namespace

Side* side_of(PyObject* capsule) { return static_cast<Side*>(PyCapsule_GetPointer(capsule, kCapsule)); }

bool has_arguments(const char* name, Py_ssize_t given, Py_ssize_t wanted) {
  if (given == wanted) return true;
  PyErr_Format(PyExc_ValueError, "%s takes %zd arguments, %zd given", name, wanted, given);
  return false;
}

std::uint32_t involuntary_switches() {
  rusage usage{};
  return getrusage(RUSAGE_THREAD, &usage) == 0 ? static_cast<std::uint32_t>(usage.ru_nivcsw) : 0;
}

namespace {

bench_ring* ring_of(PyObject* capsule) {
  const Side* side = side_of(capsule);
  return side == nullptr ? nullptr : side->ring;
}

// attach(fd, wake_fd, stream, is_producer) -> ring
PyObject* attach(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (!has_arguments("attach", n, 4)) return nullptr;
  long values[4];
  for (int i = 0; i < 4; ++i) {
    values[i] = PyLong_AsLong(args[i]);
    if (values[i] == -1 && PyErr_Occurred() != nullptr) return nullptr;
  }
  bench_ring* ring = nullptr;
  const int status = bench_ring_attach(static_cast<int>(values[0]), static_cast<int>(values[1]),
                                       static_cast<std::uint32_t>(values[2]), static_cast<int>(values[3]), &ring);
  if (status != BENCH_RING_OK) return PyErr_Format(PyExc_ValueError, "%s", bench_ring_message(status));
  return PyCapsule_New(new Side(ring), kCapsule, destroy);
}

// The handle that a request id starts with: its decimal digits. vLLM may append "-" and a random part.
std::uint32_t handle_of(PyObject* id) {
  Py_ssize_t size = 0;
  const char* text = PyUnicode_AsUTF8AndSize(id, &size);
  if (text == nullptr) {
    PyErr_Clear();
    return BENCH_UNKNOWN_COUNT;
  }
  std::uint64_t handle = 0;
  Py_ssize_t digits = 0;
  while (digits < size && digits < 10 && text[digits] >= '0' && text[digits] <= '9') {
    handle = handle * 10 + static_cast<std::uint64_t>(text[digits] - '0');
    ++digits;
  }
  const bool ends = digits == size || text[digits] == '-';
  return digits > 0 && ends && handle < BENCH_UNKNOWN_COUNT ? static_cast<std::uint32_t>(handle) : BENCH_UNKNOWN_COUNT;
}

// Tokens in one row of sampled_token_ids; a row is a list, or whatever has a length.
Py_ssize_t tokens_in(PyObject* row) {
  const Py_ssize_t size = PyList_Size(row);
  if (size >= 0) return size;
  PyErr_Clear();
  return PyObject_Size(row);
}

// Takes the rows of one step that have tokens; false with a Python error set.
bool gather(bench::Tap& tap, PyObject* req_ids, PyObject* sampled, Py_ssize_t requests) {
  for (Py_ssize_t i = 0; i < requests; ++i) {
    const Py_ssize_t tokens = tokens_in(PyList_GetItem(sampled, i));
    if (tokens < 0) return false;
    if (tokens == 0) continue;  // a prompt that is not through yet
    tap.add(handle_of(PyList_GetItem(req_ids, i)), static_cast<std::uint16_t>(tokens < 0xFFFF ? tokens : 0xFFFF));
  }
  return true;
}

// tap(ring, entered_ns, req_ids, sampled_token_ids) -> None
// Pushes one event per row that has tokens; all are stamped and become visible together.
PyObject* tap(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (!has_arguments("tap", n, 4)) return nullptr;
  Side* side = side_of(args[0]);
  if (side == nullptr) return nullptr;
  const Py_ssize_t requests = PyList_Size(args[2]);
  const Py_ssize_t rows = PyList_Size(args[3]);
  if (requests < 0 || rows < 0) return nullptr;
  // A step without sampling gives ids and no rows.
  const Py_ssize_t pairs = rows == 0 ? 0 : requests;
  if (rows != pairs) return PyErr_Format(PyExc_ValueError, "%zd request ids, %zd rows of tokens", requests, rows);
  const bool has_room = side->ring->tap.begin_step(static_cast<std::uint32_t>(pairs));
  if (has_room && !gather(side->ring->tap, args[2], args[3], pairs)) return nullptr;
  side->ring->tap.publish_step();
  side->tap_push_ns = static_cast<std::uint32_t>(bench::clock_ns() - PyLong_AsUnsignedLongLong(args[1]));
  return Py_BuildValue("");
}

// Instructions that the calling thread has retired in user mode, or -1 where the machine or its owner does not let them
// be counted. The counter is opened at the first call.
long long instructions() {
  thread_local const int counter = [] {
    perf_event_attr wanted{};
    wanted.size = sizeof wanted;
    wanted.type = PERF_TYPE_HARDWARE;
    wanted.config = PERF_COUNT_HW_INSTRUCTIONS;
    wanted.exclude_kernel = 1;
    wanted.exclude_hv = 1;
    return static_cast<int>(syscall(SYS_perf_event_open, &wanted, 0, -1, -1, PERF_FLAG_FD_CLOEXEC));
  }();
  long long count = 0;
  return counter >= 0 && read(counter, &count, sizeof count) == sizeof count ? count : -1;
}

// instructions() -> int: see above
PyObject* instructions_of_thread(PyObject*, PyObject* const*, Py_ssize_t n) {
  if (!has_arguments("instructions", n, 0)) return nullptr;
  return Py_BuildValue("L", instructions());
}

// tapped(ring) -> (steps tapped in this run, tap_push_ns, token events of the last tap)
PyObject* tapped(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (!has_arguments("tapped", n, 1)) return nullptr;
  const Side* side = side_of(args[0]);
  if (side == nullptr) return nullptr;
  return Py_BuildValue("(III)", side->ring->tap.steps(), side->tap_push_ns, side->ring->tap.events());
}

// begin(ring) -> None: the next tap is step 0 of a new run.
PyObject* begin(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (!has_arguments("begin", n, 1)) return nullptr;
  Side* side = side_of(args[0]);
  if (side == nullptr) return nullptr;
  side->ring->tap.begin_run();
  side->recorded_steps = 0;
  side->recorded_switches = involuntary_switches();
  return Py_BuildValue("");
}

}  // namespace

bool records_in(PyObject* object, const bench_record** records, std::uint32_t* n) {
  char* bytes = nullptr;
  Py_ssize_t size = 0;
  if (PyBytes_AsStringAndSize(object, &bytes, &size) != 0) return false;
  if (size % BENCH_RECORD_SIZE != 0) {
    PyErr_Format(PyExc_ValueError, "%zd bytes are not whole records", size);
    return false;
  }
  *records = reinterpret_cast<const bench_record*>(bytes);
  *n = static_cast<std::uint32_t>(size / BENCH_RECORD_SIZE);
  return true;
}

namespace {

// push(ring, bytes) -> number of records pushed, 0 if they found no room. `bytes` is a whole number of records.
PyObject* push(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (!has_arguments("push", n, 2)) return nullptr;
  bench_ring* ring = ring_of(args[0]);
  const bench_record* records = nullptr;
  std::uint32_t count = 0;
  if (ring == nullptr || !records_in(args[1], &records, &count)) return nullptr;
  return PyLong_FromUnsignedLongLong(bench_ring_push(ring, records, count));
}

// push_in_the_end(ring, bytes) -> None: pushes them, and waits for room if there is none, which is counted.
PyObject* push_and_wait(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (!has_arguments("push_in_the_end", n, 2)) return nullptr;
  Side* side = side_of(args[0]);
  const bench_record* records = nullptr;
  std::uint32_t count = 0;
  if (side == nullptr || !records_in(args[1], &records, &count)) return nullptr;
  return push_in_the_end(side, records, count) ? Py_BuildValue("") : nullptr;
}

// pop(ring) -> bytes: what is there, at most 64 records.
PyObject* pop(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (!has_arguments("pop", n, 1)) return nullptr;
  bench_ring* ring = ring_of(args[0]);
  if (ring == nullptr) return nullptr;
  bench_record records[64];
  std::uint32_t got = 0;
  bench_look look{};
  const int status = bench_ring_pop(ring, records, 64, &got, &look);
  if (status != BENCH_RING_OK) return PyErr_Format(PyExc_ValueError, "%s", bench_ring_message(status));
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(records), got * BENCH_RECORD_SIZE);
}

// wait(ring, timeout_ms) -> None: sleeps, without the interpreter's lock, until a record is there.
PyObject* wait(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (!has_arguments("wait", n, 2)) return nullptr;
  bench_ring* ring = ring_of(args[0]);
  const long timeout_ms = PyLong_AsLong(args[1]);
  if (ring == nullptr || PyErr_Occurred() != nullptr) return nullptr;
  PyThreadState* state = PyEval_SaveThread();
  const int status = bench_ring_wait(ring, static_cast<std::uint32_t>(timeout_ms));
  PyEval_RestoreThread(state);
  if (status != BENCH_RING_OK) return PyErr_SetFromErrno(PyExc_OSError);
  return Py_BuildValue("");
}

// describe(ring) -> (capacity, locked)
PyObject* describe(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (!has_arguments("describe", n, 1)) return nullptr;
  const bench_ring* ring = ring_of(args[0]);
  if (ring == nullptr) return nullptr;
  return Py_BuildValue("(Ii)", bench_ring_capacity(ring), bench_ring_is_locked(ring));
}

// abi_version() -> int
PyObject* abi_version(PyObject*, PyObject* const*, Py_ssize_t n) {
  if (!has_arguments("abi_version", n, 0)) return nullptr;
  return PyLong_FromUnsignedLongLong(bench_ring_abi_version());
}

// die_with_parent(signal) -> None: the kernel sends `signal` to this process when the thread that forked it ends.
PyObject* die_with_parent(PyObject*, PyObject* const* args, Py_ssize_t n) {
  if (!has_arguments("die_with_parent", n, 1)) return nullptr;
  const long signal = PyLong_AsLong(args[0]);
  if (signal == -1 && PyErr_Occurred() != nullptr) return nullptr;
  if (prctl(PR_SET_PDEATHSIG, static_cast<unsigned long>(signal)) != 0) return PyErr_SetFromErrno(PyExc_OSError);
  return Py_BuildValue("");
}

PyMethodDef method(const char* name, PyCFunctionFast function, const char* doc) {
  return PyMethodDef{name, reinterpret_cast<void*>(function), kMethodFastcall, doc};
}

PyMethodDef methods[] = {
    method("attach", attach, "attach(fd, wake_fd, stream, is_producer) -> ring"),
    method("tap", tap, "tap(ring, entered_ns, req_ids, sampled_token_ids)"),
    method("tapped", tapped, "tapped(ring) -> (steps, tap_push_ns, token_events)"),
    method("step", step, "step(ring, started_ns, ended_ns, scheduled, stats, finishes) -> whether it had a record"),
    method("begin", begin, "begin(ring): the next tap is step 0"),
    method("push", push, "push(ring, records) -> number pushed"),
    method("push_in_the_end", push_and_wait, "push_in_the_end(ring, records): waits for room"),
    method("pop", pop, "pop(ring) -> records"),
    method("wait", wait, "wait(ring, timeout_ms)"),
    method("describe", describe, "describe(ring) -> (capacity, locked)"),
    method("instructions", instructions_of_thread, "instructions() -> retired by this thread, -1 if not counted"),
    method("abi_version", abi_version, "abi_version() -> int"),
    method("die_with_parent", die_with_parent, "die_with_parent(signal)"),
    method("scripted_new", scripted_new, "scripted_new(requests, gaps_ns, counts, faults) -> engine"),
    method("scripted_stage", scripted_stage, "scripted_stage(engine, lengths)"),
    method("scripted_run", scripted_run,
           "scripted_run(engine, events, requests, stepped, fd, run) -> (end, stepping_ns, refused)"),
    PyMethodDef{nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {{{1, nullptr}, nullptr, 0, nullptr}, "bench_ring", "The ring and the tap of bench.", -1,
                          methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace
}  // namespace bench::python

extern "C" __attribute__((visibility("default"))) PyObject* PyInit_bench_ring(void) {
  return PyModule_Create2(&bench::python::definition, kAbiVersion);
}
