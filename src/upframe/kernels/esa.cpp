// The end of RLFN's blocks, pixel by pixel: a 1x1 fusion and enhanced spatial attention, in two passes over the map.
//
// F. Kong et al., "Residual Local Feature Network for Efficient Super-Resolution", CVPRW 2022, fig. 3b and 4c; models/architectures/rlfn.py.
// Of C channels, with 16 of attention,
//
//     z = W5 y + b5,   r = W1 z + b1                                         first pass
//     out = z sigmoid(W4 (Wf r + bf + wide) + b4)                            second pass
//
// Between them the caller makes the pooled map of r, and widens it along the rows; `wide` is that, interpolated between two of
// its rows. Sums and products are float32 for maps of any type. Needs AVX-512 (F, BW, DQ, VL), and AVX512_BF16 for
// maps in bfloat16.

#include "kernels.h"

#include "maps.h"
#include "products.h"
#include "threads.h"

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace {

constexpr int kReduced = 16;
constexpr int kTogether = 24;  // pixels: a multiple of what any product takes
constexpr int kChunk = 48;     // pixels at a time

int whole(int count) { return (count + kTogether - 1) / kTogether * kTogether; }

// A (outputs, inputs) matrix and its bias, with outputs in whole groups of 16.
template <typename K>
struct Pointwise {
    Aligned<typename K::Stored> weights;
    Aligned<float> bias;
    int steps = 0;
    const float* take(const float* p, int inputs, int outputs) {
        const int padded = (outputs + kLanes - 1) / kLanes * kLanes;
        steps = (inputs + K::kTogether - 1) / K::kTogether;
        weights.make_zeros(std::size_t(steps) * K::kTogether * padded), bias.make_zeros(padded);
        pack<K>(weights.get(), p, inputs, outputs, padded);
        p += inputs * outputs;
        std::copy(p, p + outputs, bias.get());
        return p + outputs;
    }
};

inline __m512 sigmoid(__m512 x) {
    // exp(-x) as 2^n times a polynomial of the remainder, with a relative error of 2e-7; above 87 it underflows float32.
    x = _mm512_max_ps(_mm512_min_ps(x, _mm512_set1_ps(87)), _mm512_set1_ps(-87));
    const __m512 t = _mm512_mul_ps(x, _mm512_set1_ps(-1.44269504f));
    const __m512 n = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 f = _mm512_sub_ps(t, n);
    __m512 e = _mm512_set1_ps(1.33335581e-3f);
    e = _mm512_fmadd_ps(e, f, _mm512_set1_ps(9.61812911e-3f));
    e = _mm512_fmadd_ps(e, f, _mm512_set1_ps(5.55041087e-2f));
    e = _mm512_fmadd_ps(e, f, _mm512_set1_ps(2.40226507e-1f));
    e = _mm512_fmadd_ps(e, f, _mm512_set1_ps(6.93147181e-1f));
    e = _mm512_fmadd_ps(e, f, _mm512_set1_ps(1));
    const __m512 below = _mm512_add_ps(_mm512_scalef_ps(e, n), _mm512_set1_ps(1));
    const __m512 near = _mm512_rcp14_ps(below);  // one step of Newton's method
    return _mm512_fmadd_ps(near, _mm512_fnmadd_ps(below, near, _mm512_set1_ps(1)), near);
}

struct Attention {
    virtual ~Attention() = default;
    virtual void first(const void* y, void* z, void* r, std::int64_t pixels, int threads) const = 0;
    virtual void second(void* z, const void* r, const float* wide, const std::int32_t* cell, const float* share, int frames,
                        int height, int width, int cells, int threads) const = 0;
};

// K is the type of factors and maps: both float32 or both bfloat16.
template <typename K, int G>
class AttentionOf final : public Attention {
    using Stored = typename K::Stored;
    using Map = std::conditional_t<K::kTogether == 1, Float32Map, BFloat16Map>;
    static constexpr int P = rows_together(G), kStride = G * kLanes;
    int channels_;
    Pointwise<K> fusion_, reduction_, full_, gate_;

  public:
    AttentionOf(int channels, const float* weights) : channels_(channels) {
        weights = fusion_.take(weights, channels, channels);
        weights = reduction_.take(weights, channels, kReduced);
        weights = full_.take(weights, kReduced, kReduced);
        gate_.take(weights, kReduced, channels);
    }

    void first(const void* y, void* z, void* r, std::int64_t pixels, int threads) const override {
        const int chunks = static_cast<int>((pixels + kChunk - 1) / kChunk);
        constexpr int kBundle = 16;  // chunks that a thread takes at a time
        in_parallel((chunks + kBundle - 1) / kBundle, threads, [&](auto&& next) {
            for (int bundle; (bundle = next()) >= 0;)
                for (int i = bundle * kBundle; i < std::min(chunks, (bundle + 1) * kBundle); i++) {
                    const std::int64_t at = std::int64_t(i) * kChunk;
                    refine(static_cast<const Stored*>(y) + at * channels_, static_cast<Stored*>(z) + at * channels_,
                           static_cast<Stored*>(r) + at * kReduced, static_cast<int>(std::min<std::int64_t>(kChunk, pixels - at)));
                }
        });
    }

    void second(void* z, const void* r, const float* wide, const std::int32_t* cell, const float* share, int frames, int height,
                int width, int cells, int threads) const override {
        in_parallel(frames * height, threads, [&](auto&& next) {
            for (int row; (row = next()) >= 0;) {
                const int y = row % height;
                const float* near = wide + (std::size_t(row / height) * cells + cell[y]) * width * kReduced;
                const float* far = cell[y] + 1 < cells ? near + std::size_t(width) * kReduced : near;
                for (int x = 0; x < width; x += kChunk) {
                    const std::size_t at = std::size_t(row) * width + x;
                    attend(static_cast<Stored*>(z) + at * channels_, static_cast<const Stored*>(r) + at * kReduced,
                           near + std::size_t(x) * kReduced, far + std::size_t(x) * kReduced, share[y], std::min(kChunk, width - x));
                }
            }
        });
    }

  private:
    // Both copy their pixels first: products may read beyond the last pixel of a map.
    __attribute__((noinline)) void refine(const Stored* y, Stored* z, Stored* r, int count) const {
        alignas(64) Stored in[kChunk * kStride], out[kChunk * kStride];
        read(y, in, count);
        for (int p = 0; p < whole(count); p += P)
            multiply<K, G, P>(in + p * kStride, kStride, fusion_.weights.get(), fusion_.steps, fusion_.bias.get(),
                              [&](const __m512 (&sum)[P][G]) {
#pragma GCC unroll 12
                                  for (int i = 0; i < P; i++)
#pragma GCC unroll 4
                                      for (int g = 0; g < G; g++) K::store(out + (p + i) * kStride + g * kLanes, sum[i][g]);
                              });
        for (int p = 0; p < count; p += 12)
            multiply<K, 1, 12>(out + p * kStride, kStride, reduction_.weights.get(), reduction_.steps, reduction_.bias.get(),
                               [&](const __m512 (&sum)[12][1]) {
                                   for (int i = 0; i < std::min(12, count - p); i++) K::store(r + (p + i) * kReduced, sum[i][0]);
                               });
        for (int p = 0; p < count; p++)
            for (int g = 0; g < G; g++) {
                const __mmask16 mask = lanes(channels_ - g * kLanes);
                Map::store(mask, z + p * channels_ + g * kLanes, K::load(out + p * kStride + g * kLanes));
            }
    }

    __attribute__((noinline)) void attend(Stored* z, const Stored* r, const float* near, const float* far, float share,
                                          int count) const {
        alignas(64) Stored in[kChunk * kReduced], full[kChunk * kReduced];
        std::memcpy(in, r, std::size_t(count) * kReduced * sizeof(Stored));
        std::memset(in + count * kReduced, 0, std::size_t(whole(count) - count) * kReduced * sizeof(Stored));
        const __m512 of_far = _mm512_set1_ps(share), of_near = _mm512_set1_ps(1 - share);
        for (int p = 0; p < whole(count); p += 12)
            multiply<K, 1, 12>(in + p * kReduced, kReduced, full_.weights.get(), full_.steps, full_.bias.get(),
                               [&](const __m512 (&sum)[12][1]) {
                                   for (int i = p; i < p + 12; i++) {
                                       const int at = std::min(i, count - 1) * kReduced;
                                       const __m512 more = _mm512_fmadd_ps(of_near, _mm512_loadu_ps(near + at), sum[i - p][0]);
                                       K::store(full + i * kReduced, _mm512_fmadd_ps(of_far, _mm512_loadu_ps(far + at), more));
                                   }
                               });
        for (int p = 0; p < count; p += P)
            multiply<K, G, P>(full + p * kReduced, kReduced, gate_.weights.get(), gate_.steps, gate_.bias.get(),
                              [&](const __m512 (&sum)[P][G]) {
#pragma GCC unroll 12
                                  for (int i = 0; i < P; i++) {
                                      if (p + i >= count) break;
#pragma GCC unroll 4
                                      for (int g = 0; g < G; g++) {
                                          const __mmask16 mask = lanes(channels_ - g * kLanes);
                                          Stored* at = z + (p + i) * channels_ + g * kLanes;
                                          Map::store(mask, at, _mm512_mul_ps(Map::load(mask, at), sigmoid(sum[i][g])));
                                      }
                                  }
                              });
    }

    void read(const Stored* from, Stored* to, int count) const {
        for (int p = 0; p < count; p++)
            for (int g = 0; g < G; g++)
                K::store(to + p * kStride + g * kLanes, Map::load(lanes(channels_ - g * kLanes), from + p * channels_ + g * kLanes));
        std::memset(to + count * kStride, 0, std::size_t(whole(count) - count) * kStride * sizeof(Stored));
    }
};

template <typename K>
Attention* attention(int channels, const float* weights) {
    switch ((channels + kLanes - 1) / kLanes) {
        case 1: return new AttentionOf<K, 1>(channels, weights);
        case 2: return new AttentionOf<K, 2>(channels, weights);
        case 3: return new AttentionOf<K, 3>(channels, weights);
        case 4: return new AttentionOf<K, 4>(channels, weights);
        default: return nullptr;
    }
}

}  // namespace

// Packs float32 weights, each matrix (outputs, inputs) before its bias: the fusion, and ESA's conv1, conv_f and conv4, with 16
// channels inside. Maps and factors of products are float32 or bfloat16. Returns null if memory runs out, or for more than 64
// channels.
UPFRAME_API void* upframe_esa_make(int channels, int is_bf16, const float* weights) {
    try {
        return is_bf16 ? attention<BFloat16>(channels, weights) : attention<Float32>(channels, weights);
    } catch (...) {
        return nullptr;
    }
}

// y, z (pixels, channels), which may be the same, and r (pixels, 16), contiguous. Returns 0, or 1 if memory ran out.
UPFRAME_API int upframe_esa_first(const void* esa, const void* y, void* z, void* r, std::int64_t pixels, int threads) {
    try {
        static_cast<const Attention*>(esa)->first(y, z, r, pixels, threads);
        return 0;
    } catch (...) {
        return 1;
    }
}

// z (frames, height, width, channels) is overwritten; r likewise with 16 channels. `wide` is (frames, cells, width, 16) float32; a
// row takes 1 - `share` from its row `cell` and `share` from the next, if there is one.
UPFRAME_API int upframe_esa_second(const void* esa, void* z, const void* r, const float* wide, const std::int32_t* cell,
                                   const float* share, int frames, int height, int width, int cells, int threads) {
    try {
        static_cast<const Attention*>(esa)->second(z, r, wide, cell, share, frames, height, width, cells, threads);
        return 0;
    } catch (...) {
        return 1;
    }
}

UPFRAME_API void upframe_esa_free(void* esa) { delete static_cast<Attention*>(esa); }
