// The few parts of CPython's stable ABI (abi3, 3.10 and later) that the extension module needs, declared here so that
// building it needs no Python headers and one library serves every CPython. Source: "C API Stability" and "Stable ABI
// contents" in CPython's documentation. Everything is weak: the library also loads in a process without Python.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

extern "C" {

#define BENCH_PYTHON_API __attribute__((weak))

typedef ssize_t Py_ssize_t;
typedef struct _object PyObject;
typedef struct _ts PyThreadState;
typedef PyObject* (*PyCFunctionFast)(PyObject* self, PyObject* const* args, Py_ssize_t n);

struct PyMethodDef {
  const char* ml_name;
  void* ml_meth;
  int ml_flags;
  const char* ml_doc;
};
inline constexpr int kMethodFastcall = 0x0080;  // METH_FASTCALL

struct PyModuleDef {
  struct {
    struct {
      Py_ssize_t ob_refcnt;
      void* ob_type;
    } ob_base;
    void* m_init;
    Py_ssize_t m_index;
    void* m_copy;
  } m_base;
  const char* m_name;
  const char* m_doc;
  Py_ssize_t m_size;
  PyMethodDef* m_methods;
  void* m_slots;
  void* m_traverse;
  void* m_clear;
  void* m_free;
};
inline constexpr int kAbiVersion = 3;  // PYTHON_ABI_VERSION

BENCH_PYTHON_API extern PyObject* PyExc_ValueError;
BENCH_PYTHON_API extern PyObject* PyExc_OSError;
BENCH_PYTHON_API extern PyObject* PyExc_AttributeError;
BENCH_PYTHON_API extern PyObject _Py_NoneStruct;

BENCH_PYTHON_API PyObject* PyModule_Create2(PyModuleDef* definition, int abi_version);
BENCH_PYTHON_API PyObject* PyErr_Format(PyObject* exception, const char* format, ...);
BENCH_PYTHON_API PyObject* PyErr_SetFromErrno(PyObject* exception);
BENCH_PYTHON_API PyObject* PyErr_NoMemory(void);
BENCH_PYTHON_API PyObject* PyErr_Occurred(void);
BENCH_PYTHON_API int PyErr_ExceptionMatches(PyObject* exception);
BENCH_PYTHON_API void PyErr_Clear(void);
BENCH_PYTHON_API void Py_DecRef(PyObject* object);
BENCH_PYTHON_API PyObject* PyObject_GetAttr(PyObject* object, PyObject* name);
BENCH_PYTHON_API PyObject* PyDict_GetItemWithError(PyObject* dict, PyObject* key);
BENCH_PYTHON_API int PySequence_Contains(PyObject* sequence, PyObject* value);
BENCH_PYTHON_API double PyFloat_AsDouble(PyObject* value);
BENCH_PYTHON_API long PyLong_AsLong(PyObject* value);
BENCH_PYTHON_API unsigned long long PyLong_AsUnsignedLongLong(PyObject* value);
BENCH_PYTHON_API PyObject* PyLong_FromUnsignedLongLong(unsigned long long value);
BENCH_PYTHON_API Py_ssize_t PyList_Size(PyObject* list);
BENCH_PYTHON_API PyObject* PyList_GetItem(PyObject* list, Py_ssize_t index);
BENCH_PYTHON_API Py_ssize_t PyObject_Size(PyObject* object);
BENCH_PYTHON_API PyObject* PyUnicode_InternFromString(const char* text);
BENCH_PYTHON_API const char* PyUnicode_AsUTF8AndSize(PyObject* text, Py_ssize_t* size);
BENCH_PYTHON_API PyObject* PyBytes_FromStringAndSize(const char* bytes, Py_ssize_t size);
BENCH_PYTHON_API int PyBytes_AsStringAndSize(PyObject* object, char** bytes, Py_ssize_t* size);
BENCH_PYTHON_API PyObject* PyCapsule_New(void* pointer, const char* name, void (*destroy)(PyObject*));
BENCH_PYTHON_API void* PyCapsule_GetPointer(PyObject* capsule, const char* name);
BENCH_PYTHON_API PyObject* Py_BuildValue(const char* format, ...);
BENCH_PYTHON_API PyThreadState* PyEval_SaveThread(void);
BENCH_PYTHON_API void PyEval_RestoreThread(PyThreadState* state);

}  // extern "C"
