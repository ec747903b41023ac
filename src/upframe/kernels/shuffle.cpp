// The pixel shuffle that ends a network.

#include "kernels.h"

#include "threads.h"

#include <algorithm>
#include <cstddef>

namespace {

template <int Scale>
void shuffle(const float* x, float* out, int first, int whole, int height, int width, int colours, int threads) {
    const std::size_t channels = std::size_t(colours) * Scale * Scale, row = std::size_t(width) * Scale;
    in_parallel(height, threads, [&](auto&& next) {
        for (int y; (y = next()) >= 0;) {
            const float* from = x + y * (width * channels);
            constexpr int kAtOnce = 32;  // pixels, whose outputs then are in the first-level cache for all planes and rows
            for (int left = 0; left < width; left += kAtOnce)
                for (int c = 0; c < colours; c++)
                    for (int dy = 0; dy < Scale; dy++) {
                        float* to = out + ((std::size_t(c) * whole + first + y) * Scale + dy) * row;
                        const float* at = from + (c * Scale + dy) * Scale;
                        for (int w = left; w < std::min(width, left + kAtOnce); w++)
                            for (int dx = 0; dx < Scale; dx++) to[w * Scale + dx] = at[w * channels + dx];
                    }
        }
    });
}

}  // namespace

// A map (height, width, colours * scale^2), which holds the rows from `first` on of a picture of `whole` rows, to the same rows
// of planes (colours, scale * whole, scale * width). Returns 0, or 1 if the scale is not 2, 3 or 4, or if memory ran out.
UPFRAME_API int upframe_shuffle(const float* x, float* out, int first, int whole, int height, int width, int colours, int scale,
                                int threads) {
    try {
        switch (scale) {
            case 2: shuffle<2>(x, out, first, whole, height, width, colours, threads); return 0;
            case 3: shuffle<3>(x, out, first, whole, height, width, colours, threads); return 0;
            case 4: shuffle<4>(x, out, first, whole, height, width, colours, threads); return 0;
            default: return 1;
        }
    } catch (...) {
        return 1;
    }
}

UPFRAME_API int upframe_kernels_version() { return kInterfaceVersion; }

// Makes kernels run on the threads of the OpenMP library with this GOMP_parallel; null means threads of their own.
UPFRAME_API void upframe_use_threads_of(void* parallel) { torch_parallel = reinterpret_cast<Parallel>(parallel); }
