// The pixel shuffle that ends a network.

#include "kernels.h"

#include "threads.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace {

template <typename Stored>
inline float widened(Stored x) {
    if constexpr (sizeof x == 2) {
        const std::uint32_t bits = std::uint32_t(x) << 16;  // of a bfloat16
        float wide;
        std::memcpy(&wide, &bits, sizeof wide);
        return wide;
    } else {
        return x;
    }
}

template <int Scale, typename Stored>
void shuffle(const Stored* x, float* out, int first, int whole, int height, int width, int colours, int threads) {
    const std::size_t channels = std::size_t(colours) * Scale * Scale, row = std::size_t(width) * Scale;
    in_parallel(height, threads, [&](auto&& next) {
        for (int y; (y = next()) >= 0;) {
            const Stored* from = x + y * (width * channels);
            constexpr int kAtOnce = 32;  // pixels, whose outputs then are in the first-level cache for all planes and rows
            for (int left = 0; left < width; left += kAtOnce)
                for (int c = 0; c < colours; c++)
                    for (int dy = 0; dy < Scale; dy++) {
                        float* to = out + ((std::size_t(c) * whole + first + y) * Scale + dy) * row;
                        const Stored* at = from + (c * Scale + dy) * Scale;
                        for (int w = left; w < std::min(width, left + kAtOnce); w++)
                            for (int dx = 0; dx < Scale; dx++) to[w * Scale + dx] = widened(at[w * channels + dx]);
                    }
        }
    });
}

template <typename Stored>
bool shuffle_by(int scale, const void* x, float* out, int first, int whole, int height, int width, int colours, int threads) {
    const auto* from = static_cast<const Stored*>(x);
    switch (scale) {
        case 2: shuffle<2>(from, out, first, whole, height, width, colours, threads); return true;
        case 3: shuffle<3>(from, out, first, whole, height, width, colours, threads); return true;
        case 4: shuffle<4>(from, out, first, whole, height, width, colours, threads); return true;
        default: return false;
    }
}

}  // namespace

// A map (height, width, colours * scale^2), float32 or bfloat16, which is rows `first` and on of a whole of `whole` rows, to the same
// rows of planes (colours, scale * whole, scale * width) in float32. Returns 0, or 1 for a scale that is not 2, 3 or 4.
UPFRAME_API int upframe_shuffle(const void* x, int is_bf16, float* out, int first, int whole, int height, int width, int colours,
                                int scale, int threads) {
    try {
        const bool done = is_bf16 ? shuffle_by<std::uint16_t>(scale, x, out, first, whole, height, width, colours, threads)
                                  : shuffle_by<float>(scale, x, out, first, whole, height, width, colours, threads);
        return done ? 0 : 1;
    } catch (...) {
        return 1;
    }
}

UPFRAME_API int upframe_kernels_version() { return kInterfaceVersion; }

// From now on kernels run on the threads of the OpenMP library whose GOMP_parallel this is; null for threads of their own.
UPFRAME_API void upframe_use_threads_of(void* parallel) { torch_parallel = reinterpret_cast<Parallel>(parallel); }
