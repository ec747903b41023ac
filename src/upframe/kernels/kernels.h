// What the kernels export: plain C, called through ctypes (kernels/__init__.py), which lets other threads run meanwhile.

#pragma once

#include <cstdint>

#define UPFRAME_API extern "C" __attribute__((visibility("default")))

// Of this interface; `VERSION` in kernels/__init__.py.
constexpr int kInterfaceVersion = 3;
