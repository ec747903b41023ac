// Memory, and numbers as maps hold them.

#pragma once

#include <immintrin.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#ifndef UPFRAME_LANES
#define UPFRAME_LANES 16
#endif

// A vector of float32, of AVX-512, or of AVX2 where UPFRAME_LANES is 8.
constexpr int kLanes = UPFRAME_LANES;

#if UPFRAME_LANES == 16
using Vec = __m512;
using Mask = __mmask16;
inline Mask lanes(int count) { return count >= kLanes ? 0xffff : static_cast<Mask>((1u << count) - 1); }  // the first `count`
inline Vec load(const float* at) { return _mm512_loadu_ps(at); }
inline Vec load(Mask mask, const float* at) { return _mm512_maskz_loadu_ps(mask, at); }
inline void store(float* at, Vec x) { _mm512_storeu_ps(at, x); }
inline void store(Mask mask, float* at, Vec x) { _mm512_mask_storeu_ps(at, mask, x); }
inline Vec all(float x) { return _mm512_set1_ps(x); }
inline Vec zeros() { return _mm512_setzero_ps(); }
inline Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
inline Vec subtract(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
inline Vec least(Vec a, Vec b) { return _mm512_min_ps(a, b); }
inline Vec most(Vec a, Vec b) { return _mm512_max_ps(a, b); }
inline Vec multiply_add(Vec a, Vec b, Vec sum) { return _mm512_fmadd_ps(a, b, sum); }
inline Vec multiply_subtract_from(Vec a, Vec b, Vec sum) { return _mm512_fnmadd_ps(a, b, sum); }
#else
using Vec = __m256;
using Mask = __m256i;
inline Mask lanes(int count) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
inline Vec load(const float* at) { return _mm256_loadu_ps(at); }
inline Vec load(Mask mask, const float* at) { return _mm256_maskload_ps(at, mask); }
inline void store(float* at, Vec x) { _mm256_storeu_ps(at, x); }
inline void store(Mask mask, float* at, Vec x) { _mm256_maskstore_ps(at, mask, x); }
inline Vec all(float x) { return _mm256_set1_ps(x); }
inline Vec zeros() { return _mm256_setzero_ps(); }
inline Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
inline Vec subtract(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
inline Vec least(Vec a, Vec b) { return _mm256_min_ps(a, b); }
inline Vec most(Vec a, Vec b) { return _mm256_max_ps(a, b); }
inline Vec multiply_add(Vec a, Vec b, Vec sum) { return _mm256_fmadd_ps(a, b, sum); }
inline Vec multiply_subtract_from(Vec a, Vec b, Vec sum) { return _mm256_fnmadd_ps(a, b, sum); }
#endif

struct Float32Map {
    using Stored = float;
    static Vec load(Mask mask, const float* at) { return ::load(mask, at); }
    static void store(Mask mask, float* at, Vec x) { ::store(mask, at, x); }
};

#if UPFRAME_LANES == 16
struct BFloat16Map {
    using Stored = std::uint16_t;
    static __m512 load(__mmask16 mask, const std::uint16_t* at) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, at)), 16));
    }
    static void store(__mmask16 mask, std::uint16_t* at, __m512 x) {
        _mm256_mask_storeu_epi16(at, mask, (__m256i)_mm512_cvtneps_pbh(x));
    }
};
#endif

// Page-aligned memory, in large pages if it is large: with small pages, writes to many places at once touch more pages than the
// TLB holds, and pages that collide in the same cache sets.
template <typename T>
struct Aligned {
    struct Free {
        void operator()(T* p) const { std::free(p); }
    };
    std::unique_ptr<T, Free> held;
    void make(std::size_t count) {
        constexpr std::size_t small = 4096, large = std::size_t(2) << 20;
        const std::size_t page = count * sizeof(T) >= large / 2 ? large : small;
        const std::size_t bytes = (count * sizeof(T) + page - 1) / page * page;
        held.reset(static_cast<T*>(std::aligned_alloc(page, bytes)));
        if (!held) throw std::bad_alloc();
        if (page == large) madvise(held.get(), bytes, MADV_HUGEPAGE);
    }
    void make_zeros(std::size_t count) {
        make(count);
        std::memset(held.get(), 0, count * sizeof(T));
    }
    T* get() const { return held.get(); }
};

// Memory that a thread keeps for its next call.
class Scratch {
    Aligned<float> held_;
    std::size_t count_ = 0;

  public:
    // Holds its former content, or zeros.
    float* get(std::size_t count) {
        if (count > count_) {
            count_ = 0;
            held_.make_zeros(count);
            count_ = count;
        }
        return held_.get();
    }
};
