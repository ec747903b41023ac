// The blocks of VapSR, fused: no map of a block but its input and output leaves the cache.
//
// A block (paper: Zhou et al., ECCVW 2022, section 3.2; models/architectures/vapsr.py) of C channels and A = 64 channels of attention is
//
//     y1 = gelu(W1 x + b1)          point-wise           C -> A
//     y2 = W2 y1 + b2               point-wise           A -> A
//     y3 = D1 * y2 + e1             5x5, each channel by itself
//     y4 = D2 * y3 + e2             the same with dilation 3
//     out = norm(W3 (y4 y1) + b3 + x)  point-wise, A -> C, and a normalisation of each pixel
//
// Each strip of columns is computed from top to bottom, some rows at a time. Only the rows of y1, y2 and y3 that later rows
// need are kept, in rings that stay in or near the second-level cache. Strips overlap by 8 columns on each side, which are
// computed twice. Outside the picture maps are set to zero, and not computed from zeros.
//
// Two forms, the same code: float32, and bfloat16 products with float32 sums, sums and the maps between blocks in float32.
// Needs AVX-512 (F, BW, DQ, VL), and AVX512_BF16 for the second form; the caller looks before this is loaded.

#include "kernels.h"

#include "maps.h"
#include "products.h"
#include "threads.h"

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

namespace {

constexpr int kReach = 8;           // columns and rows that a block sees around a pixel: 2 and 6
constexpr int kBefore = 16;         // columns of a buffered row before the strip's first
constexpr int kBatch = 6;           // rows that are made at a time: a column of them stays in the first-level cache
constexpr int kSpare = 32;          // columns at the end of a buffered row that tiles may overrun
constexpr float kEpsilon = 1e-5f;   // epsilon of the normalisation, torch's default

// Numbers as they are stored ------------------------------------------------------------------------------------------

struct Rows32 : Float32 {
    static constexpr int kStrip = 160;   // columns
    static constexpr int kDegree = 5;    // of GELU's polynomials

    // In maps that a 5x5 convolution reads, float32 columns are stored one by one, and a product takes one tap.
    using Column = float;
    static constexpr int kTaps = 5, kTapsTogether = 1;
    static float taps(float first, float) { return first; }
    static void store_column(float* at, __m512 x, __m512) { _mm512_storeu_ps(at, x); }
    static __m512 alone(__m512 column) { return column; }
};

struct Rows16 : BFloat16 {
    static constexpr int kStrip = 160;
    static constexpr int kDegree = 3;

    // In bfloat16, each column is paired with the column of the convolution's next tap: one product takes two taps, and three
    // products take the five, the last one with zeros.
    using Column = std::uint32_t;
    static constexpr int kTaps = 3, kTapsTogether = 2;
    static std::uint32_t taps(float first, float second) { return stored(first) | std::uint32_t(stored(second)) << 16; }
    static void store_column(std::uint32_t* at, __m512 x, __m512 next) {
        const __m512i turns = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,  //
                                               23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
        _mm512_storeu_si512(at, _mm512_permutexvar_epi16(turns, (__m512i)_mm512_cvtne2ps_pbh(next, x)));
    }
    static __m512 alone(__m512 column) {
        return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(column), _mm512_set1_epi32(0xffff)));
    }
};

// GELU -----------------------------------------------------------------------------------------------------------------

// gelu(x) = max(x, 0) - g(|x|) with g(t) = t (1 - Phi(t)): a low bump, less than 1e-13 from 7.5 on. Sixteen polynomials, one
// around each multiple of 0.5, their coefficients looked up in registers: of t in bfloat16, of the distance from the multiple
// in float32.
template <int Degree>
struct Gelu {
    __m512 coefficients[Degree + 1];  // of rising powers; one polynomial a lane
    explicit Gelu(const float* table) {
        for (int i = 0; i <= Degree; i++) coefficients[i] = _mm512_loadu_ps(table + i * kLanes);
    }
    __m512 operator()(__m512 x) const {
        constexpr int kLeastWithoutSigns = 0b1010;
        const __m512 t = _mm512_range_ps(x, _mm512_set1_ps(7.74f), kLeastWithoutSigns);
        const __m512 units = _mm512_set1_ps(1.5f * (1 << 22));  // float32 around this number are multiples of 0.5
        const __m512 rounded = _mm512_add_ps(t, units);
        const __m512i segment = _mm512_castps_si512(rounded);  // of which four bits count
        const __m512 u = Degree > 3 ? _mm512_sub_ps(t, _mm512_sub_ps(rounded, units)) : t;
        __m512 bump = _mm512_permutexvar_ps(segment, coefficients[Degree]);
        for (int i = Degree - 1; i >= 0; i--)
            bump = _mm512_fmadd_ps(bump, u, _mm512_permutexvar_ps(segment, coefficients[i]));
        return _mm512_sub_ps(_mm512_max_ps(x, _mm512_setzero_ps()), bump);
    }
};

// Weights --------------------------------------------------------------------------------------------------------------

template <typename K, int C, int A>
struct Block {
    typename K::Stored w1[C * A], w2[A * A], w3[A * C];
    typename K::Column d1[5 * K::kTaps * A], d2[5 * K::kTaps * A];
    float b1[A], b2[A], b3[C], e1[A], e2[A], scale[C], shift[C];

    static constexpr int kFloats = C * A + A + A * A + A + 2 * (25 * A + A) + A * C + C + 2 * C;

    explicit Block(const float* p) {
        p = pointwise(w1, b1, p, C, A);
        p = pointwise(w2, b2, p, A, A);
        p = depthwise(d1, e1, p);
        p = depthwise(d2, e2, p);
        p = pointwise(w3, b3, p, A, C);
        std::copy(p, p + C, scale);
        std::copy(p + C, p + 2 * C, shift);
    }

  private:
    static const float* pointwise(typename K::Stored* w, float* b, const float* p, int inputs, int outputs) {
        pack<K>(w, p, inputs, outputs, outputs);
        std::copy(p + inputs * outputs, p + inputs * outputs + outputs, b);
        return p + inputs * outputs + outputs;
    }
    // (A, 5, 5) to [5][products of a row][A].
    static const float* depthwise(typename K::Column* d, float* e, const float* p) {
        for (int a = 0; a < A; a++)
            for (int ky = 0; ky < 5; ky++)
                for (int k = 0; k < K::kTaps; k++) {
                    const float* tap = p + (a * 5 + ky) * 5 + k * K::kTapsTogether;
                    const bool is_last = k == K::kTaps - 1;
                    d[(ky * K::kTaps + k) * A + a] = K::taps(tap[0], is_last ? 0.0f : tap[1]);
                }
        std::copy(p + 25 * A, p + 26 * A, e);
        return p + 26 * A;
    }
};

// Parts of a row -------------------------------------------------------------------------------------------------------

// Computes P pixels of a point-wise convolution and passes their sums to `finish`.
template <typename K, int Inputs, int Outputs, int P, typename Finish>
inline void pointwise_tile(const typename K::Stored* x, const typename K::Stored* w, const float* bias, Finish&& finish) {
    multiply<K, Outputs / kLanes, P>(x, Inputs, w, Inputs / K::kTogether, bias, finish);
}

// A 5x5 convolution of each channel: T columns, `Dilation` apart, of `Rows` rows as far apart, so that loaded values serve many
// sums and enough sums run at once. `finish` gets the first column, the row, and its sums.
constexpr int kTile = 8;
template <typename K, int A, int Dilation, int Rows, typename Finish>
inline void depthwise_tile(const typename K::Column* const* rows, const typename K::Column* d, const float* e, int x, int a,
                           Finish&& finish) {
    __m512 sum[Rows][kTile];
    const __m512 first = _mm512_loadu_ps(e + a);
#pragma GCC unroll 2
    for (int r = 0; r < Rows; r++)
#pragma GCC unroll 8
        for (int t = 0; t < kTile; t++) sum[r][t] = first;
#pragma GCC unroll 6
    for (int y = 0; y < 4 + Rows; y++) {
        const typename K::Column* row = rows[y * Dilation] + (x - 2 * Dilation) * A + a;
        __m512 w[Rows][K::kTaps];
#pragma GCC unroll 2
        for (int r = 0; r < Rows; r++)
#pragma GCC unroll 5
            for (int k = 0; k < K::kTaps; k++)
                if (y - r >= 0 && y - r < 5) w[r][k] = _mm512_loadu_ps(d + ((y - r) * K::kTaps + k) * A + a);
#pragma GCC unroll 12
        for (int i = 0; i < kTile + 4; i++) {
            const __m512 here = _mm512_loadu_ps(row + i * Dilation * A);
#pragma GCC unroll 2
            for (int r = 0; r < Rows; r++)
#pragma GCC unroll 5
                for (int k = 0; k < K::kTaps; k++) {
                    const int t = i - k * K::kTapsTogether;
                    if (t >= 0 && t < kTile && y - r >= 0 && y - r < 5)
                        sum[r][t] = K::multiply_add(here, w[r][k], sum[r][t]);
                }
        }
    }
#pragma GCC unroll 2
    for (int r = 0; r < Rows; r++) finish(r * Dilation, sum[r]);
}

// Computes `count` rows. Row j uses rows[j], rows[j + Dilation] and so on. `finish` gets the row, the first of eight columns,
// the first of 16 channels, and the sums.
template <typename K, int A, int Dilation, typename Finish>
inline void depthwise_rows(const typename K::Column* const* rows, int count, const typename K::Column* d, const float* e,
                           int from, int to, Finish&& finish) {
    for (int x0 = from; x0 < to; x0 += kTile * Dilation)
        for (int x = x0; x < x0 + Dilation; x++)
            for (int a = 0; a < A; a += kLanes)
                for (int j0 = 0; j0 < count; j0 += 2 * Dilation)
                    for (int j = j0; j < std::min(j0 + Dilation, count); j++) {
                        const auto done = [&](int more, const __m512 (&sum)[kTile]) { finish(j + more, x, a, sum); };
                        if (j + Dilation < count)
                            depthwise_tile<K, A, Dilation, 2>(rows + j, d, e, x, a, done);
                        else
                            depthwise_tile<K, A, Dilation, 1>(rows + j, d, e, x, a, done);
                    }
}

// Writes a row that a convolution of that dilation will read, in tiles of T columns side by side.
template <typename K, int A, int Dilation>
class ColumnWriter {
    typename K::Column* row_ = nullptr;
    __m512 before_[A / kLanes][Dilation] = {};  // the last columns, which wait for their pairs
    static constexpr int kLag = K::kTapsTogether == 1 ? 0 : Dilation;

  public:
    ColumnWriter() = default;
    explicit ColumnWriter(typename K::Column* row) : row_(row) {}

    template <int T, typename Column>
    void put(int x, int a, Column&& column) {
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) {
            const __m512 first = kLag == 0 ? column(t) : t < kLag ? before_[a / kLanes][t] : column(t - kLag);
            K::store_column(row_ + (x + t - kLag) * A + a, first, column(t));
        }
        for (int i = 0; i < kLag; i++) before_[a / kLanes][i] = column(T - kLag + i);
    }

    // Ends the row before column `to`; `x` is the first column not written. Later columns are zero.
    void end(int to, int x) {
        for (int a = 0; a < A; a += kLanes) {
            for (int i = 0; i < kLag; i++) K::store_column(row_ + (x - kLag + i) * A + a, before_[a / kLanes][i], _mm512_setzero_ps());
            for (int i = to - kLag; i < to; i++) {
                auto* at = row_ + i * A + a;
                _mm512_storeu_ps(at, K::alone(_mm512_loadu_ps(at)));
            }
        }
        std::memset(row_ + to * A, 0, std::size_t(kReach) * A * sizeof(typename K::Column));
    }
};

// The sums of eight vectors.
inline __m256 sums(const __m512 (&x)[8]) {
    __m256 half[8];
    for (int i = 0; i < 8; i++) half[i] = _mm256_add_ps(_mm512_castps512_ps256(x[i]), _mm512_extractf32x8_ps(x[i], 1));
    const __m256 low = _mm256_hadd_ps(_mm256_hadd_ps(half[0], half[1]), _mm256_hadd_ps(half[2], half[3]));
    const __m256 high = _mm256_hadd_ps(_mm256_hadd_ps(half[4], half[5]), _mm256_hadd_ps(half[6], half[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
}

// A strip of a block -----------------------------------------------------------------------------------------------------

template <typename K, int C, int A>
class Strip {
    using Stored = typename K::Stored;
    using Column = typename K::Column;
    static constexpr int kRows1 = kBatch + kReach, kRows2 = kBatch + 4, kRows3 = kBatch + 12;
    int columns_ = 0;
    std::size_t stride_ = 0;
    Aligned<float> room_;  // for all of these
    Stored *x_ = nullptr, *y1_ = nullptr, *y5_ = nullptr;
    Column *y2_ = nullptr, *y3_ = nullptr, *zeros_ = nullptr;
    float* sum_ = nullptr;

    template <typename T>
    T* row(T* ring, int rows, int r) const {
        return ring + (r % rows) * stride_;
    }

  public:
    void make(int width) {
        columns_ = kBefore + width + kReach + kSpare;
        stride_ = std::size_t(columns_) * A;
        while (stride_ % 1024 != 272) stride_ += 16;  // so that vertical neighbours do not share a set of the cache
        const std::size_t narrow = std::size_t(columns_) * C;
        std::size_t floats = 0;
        const auto place = [&]<typename T>(T*& part, std::size_t count) {
            if (room_.get()) part = reinterpret_cast<T*>(room_.get() + floats);
            floats += (count * sizeof(T) + 63) / 64 * 64 / sizeof(float);
        };
        const auto place_all = [&] {
            floats = 0;
            place(y1_, kRows1 * stride_), place(y2_, kRows2 * stride_), place(y3_, kRows3 * stride_);
            place(y5_, kBatch * stride_), place(zeros_, stride_), place(x_, narrow), place(sum_, narrow);
        };
        place_all();
        room_.make_zeros(floats);
        place_all();
    }

    // Columns [left, right) of `out` from `x`, both (height, width, C) float32 with room for a tile more at their end.
    void run(const Block<K, C, A>& block, const Gelu<K::kDegree>& gelu, const float* x, float* out, int height, int width,
             int left, int right) {
        const int base = left - kBefore;  // the column of the picture that a buffer begins with
        const int from2 = std::max(0, left - kReach), to2 = std::min(width, right + kReach);
        const int from3 = std::max(0, left - 6), to3 = std::min(width, right + 6);
        // An earlier strip may have left pixels beyond the picture's left edge.
        for (int r = 0; r < kRows2; r++) std::memset(row(y2_, kRows2, r), 0, std::size_t(from2 - base) * A * sizeof(Column));
        for (int r = 0; r < kRows3; r++) std::memset(row(y3_, kRows3, r), 0, std::size_t(from3 - base) * A * sizeof(Column));
        for (int s = 0; s < height + kReach; s += kBatch) {
            for (int r = s; r < std::min(s + kBatch, height); r++)
                expand(block, gelu, x + (std::size_t(r) * width + from2) * C, r, from2 - base, to2 - base);
            spread_near(block, std::max(0, s - 2), std::min(s - 2 + kBatch, height), height, from3 - base, to3 - base);
            const int first = std::max(0, s - kReach), end = std::min(s - kReach + kBatch, height);
            spread_far(block, first, end, height, left - base, right - base);
            for (int r = first; r < end; r++) {
                const std::size_t at = (std::size_t(r) * width + left) * C;
                contract(block, x + at, out + at, r, left - base, right - left);
            }
        }
    }

  private:
    // Computes y1 and y2. Not inlined, like the others: a separate function has all registers.
    __attribute__((noinline)) void expand(const Block<K, C, A>& block, const Gelu<K::kDegree>& gelu, const float* x, int s,
                                          int from, int to) {
        constexpr int P = 6, G = A / kLanes;
        const int count = to - from;
        Stored* in = x_;
        for (int i = 0; i < count * C; i += kLanes) K::store(in + i, _mm512_loadu_ps(x + i));
        Stored* y1 = row(y1_, kRows1, s) + from * A;
        ColumnWriter<K, A, 1> y2(row(y2_, kRows2, s));
        int i = 0;
        for (; i < count; i += P) {
            pointwise_tile<K, C, A, P>(in + i * C, block.w1, block.b1, [&](const __m512 (&sum)[P][G]) {
                for (int p = 0; p < P; p++)
                    for (int g = 0; g < G; g++) K::store(y1 + (i + p) * A + g * kLanes, gelu(sum[p][g]));
            });
            pointwise_tile<K, A, A, P>(y1 + i * A, block.w2, block.b2, [&](const __m512 (&sum)[P][G]) {
#pragma GCC unroll 4
                for (int g = 0; g < G; g++) y2.template put<P>(from + i, g * kLanes, [&](int t) { return sum[t][g]; });
            });
        }
        y2.end(to, from + i);
    }

    // Rows [first, end) of y3.
    __attribute__((noinline)) void spread_near(const Block<K, C, A>& block, int first, int end, int height, int from, int to) {
        const Column* rows[kBatch + 4];
        for (int r = first - 2; r < end + 2; r++)
            rows[r - first + 2] = r < 0 || r >= height ? zeros_ : row(y2_, kRows2, r);
        ColumnWriter<K, A, 3> y3[kBatch];
        for (int r = first; r < end; r++) y3[r - first] = ColumnWriter<K, A, 3>(row(y3_, kRows3, r));
        depthwise_rows<K, A, 1>(rows, end - first, block.d1, block.e1, from, to,
                                [&](int j, int x, int a, const __m512 (&sum)[kTile]) {
                                    y3[j].template put<kTile>(x, a, [&](int t) { return sum[t]; });
                                });
        for (int r = first; r < end; r++) y3[r - first].end(to, from + (to - from + kTile - 1) / kTile * kTile);
    }

    // Rows [first, end) of y4 times y1.
    __attribute__((noinline)) void spread_far(const Block<K, C, A>& block, int first, int end, int height, int from, int to) {
        const Column* rows[kBatch + 12];
        for (int r = first - 6; r < end + 6; r++)
            rows[r - first + 6] = r < 0 || r >= height ? zeros_ : row(y3_, kRows3, r);
        const Stored* y1[kBatch];
        for (int r = first; r < end; r++) y1[r - first] = row(y1_, kRows1, r);
        depthwise_rows<K, A, 3>(rows, end - first, block.d2, block.e2, from, to,
                                [&](int j, int x, int a, const __m512 (&sum)[kTile]) {
                                    Stored* y5 = row(y5_, kBatch, first + j);
#pragma GCC unroll 8
                                    for (int t = 0; t < kTile; t++) {
                                        const int at = (x + 3 * t) * A + a;
                                        K::store(y5 + at, _mm512_mul_ps(sum[t], K::load(y1[j] + at)));
                                    }
                                });
    }

    // Computes a row of the block's output. A separate pass normalises it: then the long dependency chains of pixels run in
    // parallel.
    __attribute__((noinline)) void contract(const Block<K, C, A>& block, const float* x, float* out, int r, int from,
                                            int count) {
        constexpr int P = 8, G = C / kLanes;
        const Stored* y5 = row(y5_, kBatch, r) + from * A;
        float* row = sum_;
        for (int i = 0; i < count; i += P)
            pointwise_tile<K, A, C, P>(y5 + i * A, block.w3, block.b3, [&](const __m512 (&sum)[P][G]) {
#pragma GCC unroll 8
                for (int p = 0; p < P; p++)
#pragma GCC unroll 4
                    for (int g = 0; g < G; g++) {
                        const int at = (i + p) * C + g * kLanes;
                        _mm512_storeu_ps(row + at, _mm512_add_ps(sum[p][g], _mm512_loadu_ps(x + at)));
                    }
            });
        for (int i = 0; i < count; i += P) normalise(block, row + i * C, out + std::size_t(i) * C, std::min(P, count - i));
    }

    // Processes eight pixels and writes the first `count`: after them the strip's neighbour or the next row begins.
    static inline void normalise(const Block<K, C, A>& block, const float* x, float* out, int count) {
        constexpr int P = 8, G = C / kLanes;
        __m512 v[P][G], all[P];
#pragma GCC unroll 8
        for (int p = 0; p < P; p++) {
#pragma GCC unroll 4
            for (int g = 0; g < G; g++) v[p][g] = _mm512_loadu_ps(x + p * C + g * kLanes);
            all[p] = v[p][0];
#pragma GCC unroll 4
            for (int g = 1; g < G; g++) all[p] = _mm512_add_ps(all[p], v[p][g]);
        }
        const __m512 means = _mm512_castps256_ps512(_mm256_mul_ps(sums(all), _mm256_set1_ps(1.0f / C)));
#pragma GCC unroll 8
        for (int p = 0; p < P; p++) {
            const __m512 mean = _mm512_permutexvar_ps(_mm512_set1_epi32(p), means);
#pragma GCC unroll 4
            for (int g = 0; g < G; g++) v[p][g] = _mm512_sub_ps(v[p][g], mean);
            all[p] = _mm512_mul_ps(v[p][0], v[p][0]);
#pragma GCC unroll 4
            for (int g = 1; g < G; g++) all[p] = _mm512_fmadd_ps(v[p][g], v[p][g], all[p]);
        }
        const __m256 variances = _mm256_fmadd_ps(sums(all), _mm256_set1_ps(1.0f / C), _mm256_set1_ps(kEpsilon));
        const __m512 factors = _mm512_castps256_ps512(_mm256_div_ps(_mm256_set1_ps(1.0f), _mm256_sqrt_ps(variances)));
#pragma GCC unroll 8
        for (int p = 0; p < P; p++) {
            if (p >= count) return;
            const __m512 factor = _mm512_permutexvar_ps(_mm512_set1_epi32(p), factors);
#pragma GCC unroll 4
            for (int g = 0; g < G; g++) {
                const __m512 scale = _mm512_mul_ps(factor, _mm512_loadu_ps(block.scale + g * kLanes));
                const __m512 shift = _mm512_loadu_ps(block.shift + g * kLanes);
                _mm512_storeu_ps(out + p * C + g * kLanes, _mm512_fmadd_ps(v[p][g], scale, shift));
            }
        }
    }
};

// All blocks -------------------------------------------------------------------------------------------------------------

class Blocks {
  public:
    virtual ~Blocks() = default;
    virtual void run(const void* x, void* out, bool is_bf16, int height, int width, int threads) const = 0;
};

template <typename K, int C, int A>
class BlocksOf final : public Blocks {
    std::vector<Block<K, C, A>> blocks_;
    std::vector<float> gelu_;

  public:
    BlocksOf(int count, const float* weights, const float* gelu) : gelu_(gelu, gelu + (K::kDegree + 1) * kLanes) {
        blocks_.reserve(count);
        for (int i = 0; i < count; i++) blocks_.emplace_back(weights + std::size_t(i) * Block<K, C, A>::kFloats);
    }

    void run(const void* x, void* out, bool is_bf16, int height, int width, int threads) const override {
        const std::size_t values = std::size_t(height) * width * C;
        Aligned<float> maps[2];
        for (auto& map : maps) map.make(values + std::size_t(kSpare) * C);
        int strips = std::max(1, (width + K::kStrip - 1) / K::kStrip);
        if (strips < threads && width >= 4 * kReach * threads) strips = threads;
        strips = strips < threads ? strips : (strips + threads - 1) / threads * threads;
        const int workers = std::min(threads, strips);
        const int strip_width = (width + strips - 1) / strips;
        std::vector<Strip<K, C, A>> buffers(workers);
        for (auto& buffer : buffers) buffer.make(strip_width);
        const auto part = [&](int i) { return values / kLanes * i / workers * kLanes; };
        in_parallel(workers, workers, [&](auto&& next) {
            for (int i; (i = next()) >= 0;)
                for (std::size_t at = part(i); at < part(i + 1); at += kLanes)
                    _mm512_storeu_ps(maps[0].get() + at, is_bf16 ? BFloat16::load(static_cast<const std::uint16_t*>(x) + at)
                                                                 : _mm512_loadu_ps(static_cast<const float*>(x) + at));
        });
        const Gelu<K::kDegree> gelu(gelu_.data());
        for (std::size_t b = 0; b < blocks_.size(); b++) {
            std::atomic<int> taken{0};
            in_parallel(strips, workers, [&](auto&& next) {
                auto& buffer = buffers[taken++];
                for (int i; (i = next()) >= 0;) {
                    const int left = std::min(width, i * strip_width), right = std::min(width, left + strip_width);
                    if (left < right)
                        buffer.run(blocks_[b], gelu, maps[b % 2].get(), maps[(b + 1) % 2].get(), height, width, left, right);
                }
            });
        }
        const float* made = maps[blocks_.size() % 2].get();
        in_parallel(workers, workers, [&](auto&& next) {
            for (int i; (i = next()) >= 0;)
                for (std::size_t at = part(i); at < part(i + 1); at += kLanes)
                    if (is_bf16)
                        BFloat16::store(static_cast<std::uint16_t*>(out) + at, _mm512_loadu_ps(made + at));
                    else
                        _mm512_storeu_ps(static_cast<float*>(out) + at, _mm512_loadu_ps(made + at));
        });
    }
};

}  // namespace

// Packs the weights of blocks; returns null if memory runs out, or for a size that is not compiled. Weights are those of
// `Block`, in its order, float32, block after block; `gelu` holds degree + 1 rows of 16 coefficients, degree 5 in float32 and 3
// in bfloat16.
UPFRAME_API void* upframe_vapsr_make(int channels, int attention_channels, int blocks, int is_bf16, const float* weights,
                                     const float* gelu) {
    try {
        if (attention_channels != 64) return nullptr;
        Blocks* made = nullptr;
        if (channels == 32)
            made = is_bf16 ? static_cast<Blocks*>(new BlocksOf<Rows16, 32, 64>(blocks, weights, gelu))
                           : new BlocksOf<Rows32, 32, 64>(blocks, weights, gelu);
        else if (channels == 48)
            made = is_bf16 ? static_cast<Blocks*>(new BlocksOf<Rows16, 48, 64>(blocks, weights, gelu))
                           : new BlocksOf<Rows32, 48, 64>(blocks, weights, gelu);
        return made;
    } catch (...) {
        return nullptr;
    }
}

// (height, width, channels) to the same, both contiguous, float32 or bfloat16. Returns 0, or 1 if memory ran out.
UPFRAME_API int upframe_vapsr_run(const void* blocks, const void* x, void* out, int is_bf16, int height, int width, int threads) {
    try {
        static_cast<const Blocks*>(blocks)->run(x, out, is_bf16 != 0, height, width, threads);
        return 0;
    } catch (...) {
        return 1;
    }
}

UPFRAME_API void upframe_vapsr_free(void* blocks) { delete static_cast<Blocks*>(blocks); }
