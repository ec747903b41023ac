// The exported functions of the kernels: plain C, called by ctypes (kernels/__init__.py), which lets other Python threads run.

#pragma once

#include <cstdint>

#define UPFRAME_API extern "C" __attribute__((visibility("default")))

// Version of this interface; the same as `VERSION` in kernels/__init__.py.
constexpr int kInterfaceVersion = 3;
