// Memory, and numbers as maps hold them.

#pragma once

#include <immintrin.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

constexpr int kLanes = 16;

// The first `count` lanes of 16; all where it is more.
inline __mmask16 lanes(int count) { return count >= kLanes ? 0xffff : static_cast<__mmask16>((1u << count) - 1); }

struct Float32Map {
    using Stored = float;
    static __m512 load(__mmask16 mask, const float* at) { return _mm512_maskz_loadu_ps(mask, at); }
    static void store(__mmask16 mask, float* at, __m512 x) { _mm512_mask_storeu_ps(at, mask, x); }
};

struct BFloat16Map {
    using Stored = std::uint16_t;
    static __m512 load(__mmask16 mask, const std::uint16_t* at) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, at)), 16));
    }
    static void store(__mmask16 mask, std::uint16_t* at, __m512 x) {
        _mm256_mask_storeu_epi16(at, mask, (__m256i)_mm512_cvtneps_pbh(x));
    }
};

// Memory of its own, from a page's start on, in large pages where they are worth it: what is written side by side to many places
// lies on more small ones than the processor knows the way to, and on such that meet in the same sets of its cache.
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

// Room that a thread keeps for its next call.
class Scratch {
    Aligned<float> held_;
    std::size_t count_ = 0;

  public:
    // Holds what it did before, or zeros.
    float* get(std::size_t count) {
        if (count > count_) {
            count_ = 0;
            held_.make_zeros(count);
            count_ = count;
        }
        return held_.get();
    }
};
