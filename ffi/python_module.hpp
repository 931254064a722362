// What the parts of the extension module share.
#pragma once

#include "python_abi.h"
#include "ring.hpp"
#include "tap.hpp"

namespace bench::python {

// What a Python ring object stands for: one side of a ring, and the tap on it where that is the event ring's producer.
struct Side {
  explicit Side(bench_ring* attached) noexcept : ring(attached), tap(&attached->producer) {}
  Side(const Side&) = delete;
  Side& operator=(const Side&) = delete;
  ~Side() { bench_ring_close(ring); }

  bench_ring* ring;
  bench::Tap tap;
  std::uint32_t tap_push_ns = 0;  // how long the last tap took
};

// The side that a ring object stands for; null with a Python error set.
Side* side_of(PyObject* capsule);
// False with a Python error set.
bool has_arguments(const char* name, Py_ssize_t given, Py_ssize_t wanted);

// The scripted engine's functions, in python_scripted.cc.
PyObject* scripted_new(PyObject*, PyObject* const* args, Py_ssize_t n);
PyObject* scripted_stage(PyObject*, PyObject* const* args, Py_ssize_t n);
PyObject* scripted_run(PyObject*, PyObject* const* args, Py_ssize_t n);
PyObject* scripted_truth(PyObject*, PyObject* const* args, Py_ssize_t n);

}  // namespace bench::python
