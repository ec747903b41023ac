// Matrix products whose right side has few columns: the outputs of a convolution, in groups of kLanes.

#pragma once

#include "maps.h"

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

// Factors in float32, and in bfloat16, of which two lie in one lane; sums are float32.
struct Float32 {
    using Stored = float;
    static constexpr int kTogether = 1;
    static Vec load(const float* at) { return ::load(at); }
    static void store(float* at, Vec x) { ::store(at, x); }
    static float stored(float x) { return x; }
    static Vec spread(const float* at) { return all(*at); }
    static Vec multiply_add(Vec x, Vec weight, Vec sum) { return ::multiply_add(x, weight, sum); }
    static Vec weights(const float* at) { return ::load(at); }
};

#if UPFRAME_LANES == 16
struct BFloat16 {
    using Stored = std::uint16_t;
    static constexpr int kTogether = 2;
    static __m512 load(const std::uint16_t* at) { return BFloat16Map::load(0xffff, at); }
    static void store(std::uint16_t* at, __m512 x) { BFloat16Map::store(0xffff, at, x); }
    static std::uint16_t stored(float x) {  // to the nearest, halves to even; weights are finite
        std::uint32_t bits;
        std::memcpy(&bits, &x, sizeof bits);
        return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }
    static __m512 spread(const std::uint16_t* at) {
        std::int32_t pair;
        std::memcpy(&pair, at, sizeof pair);
        return _mm512_castsi512_ps(_mm512_set1_epi32(pair));
    }
    static __m512 multiply_add(__m512 x, __m512 weight, __m512 sum) {
        return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)weight);
    }
    static __m512 weights(const std::uint16_t* at) { return _mm512_castsi512_ps(_mm512_loadu_si512(at)); }
};
#endif

// (outputs, inputs) to [inputs / together][padded outputs][together]; padding is not written.
template <typename K>
void pack(typename K::Stored* to, const float* from, int inputs, int outputs, int padded) {
    for (int i = 0; i < inputs; i++)
        for (int o = 0; o < outputs; o++)
            to[(i / K::kTogether * padded + o) * K::kTogether + i % K::kTogether] = K::stored(from[o * inputs + i]);
}

// Number of groups of kLanes outputs, and of rows, of one product, so that its sums fill the registers.
constexpr int kMostGroups = kLanes == 16 ? 4 : 3;
constexpr int rows_together(int groups) {
    if (kLanes == 16) return groups == 4 ? 6 : groups == 3 ? 8 : 12;
    return groups == 3 ? 4 : groups == 2 ? 6 : 12;
}

// (P, inputs) times (inputs, G groups), starting from a `bias` for each output, or from zero if that is null; the sums are
// passed to `finish`. `steps` is the number of inputs divided by K::kTogether, rounded up.
template <typename K, int G, int P, typename Finish>
__attribute__((always_inline)) inline void multiply(const typename K::Stored* x, std::size_t stride, const typename K::Stored* w,
                                                    int steps, const float* bias, Finish&& finish) {
    Vec sum[P][G];
#pragma GCC unroll 12
    for (int p = 0; p < P; p++)
#pragma GCC unroll 4
        for (int g = 0; g < G; g++) sum[p][g] = bias ? load(bias + g * kLanes) : zeros();
    for (int k = 0; k < steps; k++) {
        Vec weights[G];
#pragma GCC unroll 4
        for (int g = 0; g < G; g++) weights[g] = K::weights(w + (k * G + g) * kLanes * K::kTogether);
#pragma GCC unroll 12
        for (int p = 0; p < P; p++) {
            const Vec spread = K::spread(x + p * stride + k * K::kTogether);
#pragma GCC unroll 4
            for (int g = 0; g < G; g++) sum[p][g] = K::multiply_add(spread, weights[g], sum[p][g]);
        }
    }
    finish(sum);
}
