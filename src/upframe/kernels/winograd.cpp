// 3x3 convolutions by Winograd's minimal filtering F(4x4, 3x3), channels last: 36 products for 16 sums of 9.
//
// A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, https://arxiv.org/abs/1509.09308. Sums and
// products are float32 for maps of any type; results differ from a direct convolution by rounding, some 1e-6 of the largest
// value.
//
// The picture is cut into tiles of 4x4 pixels that are made from 6x6. A number of tiles side by side is transformed,
// multiplied, position by position of the 36, by the transformed kernels, and transformed back, all within the second-level
// cache. Every tile is computed independently, so the pixels do not depend on the number of threads. Compiled for AVX-512
// (F, BW, DQ, VL; AVX512_BF16 for maps in bfloat16), and for AVX2 with FMA, float32 only.

#include "kernels.h"

#include "maps.h"
#include "products.h"
#include "threads.h"

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int kPositions = 36;
constexpr int kShuffled = 16;            // with a shuffle, channels of a pixel come in groups of this size
constexpr int kOut = 4, kIn = 6;         // pixels of a side of a tile
constexpr int kRows = 2;                 // of tiles that are worked on at a time: they share two of ten rows of pixels
constexpr int kAhead = 16;               // pixels that are asked for before they are read or written
constexpr std::size_t kCache = 480 << 10;  // bytes of transformed input at a time

// An odd number of cache lines, so that the 36 rows that are written side by side do not meet in the same set.
std::size_t odd_lines(std::size_t floats) {
    const std::size_t lines = (floats + kLanes - 1) / kLanes;
    return (lines | 1) * kLanes;
}

// Prefetches memory that will soon be read.
template <_mm_hint Hint>
inline void ahead(const void* from, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; i += 64) _mm_prefetch(static_cast<const char*>(from) + i, Hint);
}

// Transforms ------------------------------------------------------------------------------------------------------------

// Six numbers to six: the rows of B^T.
inline void into(const Vec (&d)[6], Vec (&t)[6]) {
    const Vec two = all(2), four = all(4), five = all(5);
    const Vec a = multiply_subtract_from(four, d[2], d[4]), b = multiply_subtract_from(four, d[1], d[3]);
    const Vec c = subtract(d[4], d[2]), e = subtract(d[3], d[1]);
    t[0] = multiply_add(four, d[0], multiply_subtract_from(five, d[2], d[4]));
    t[1] = add(a, b);
    t[2] = subtract(a, b);
    t[3] = multiply_add(two, e, c);
    t[4] = multiply_subtract_from(two, e, c);
    t[5] = multiply_add(four, d[1], multiply_subtract_from(five, d[3], d[5]));
}

// Six numbers to four: the rows of A^T.
inline void back(const Vec (&m)[6], Vec (&y)[4]) {
    const Vec two = all(2), four = all(4), eight = all(8);
    const Vec s1 = add(m[1], m[2]), d1 = subtract(m[1], m[2]), s2 = add(m[3], m[4]), d2 = subtract(m[3], m[4]);
    y[0] = add(m[0], add(s1, s2));
    y[1] = multiply_add(two, d2, d1);
    y[2] = multiply_add(four, s2, s1);
    y[3] = multiply_add(eight, d2, add(d1, m[5]));
}

// A kernel of 3x3 to 36 numbers, G g G^T, in float64.
void into_positions(const float* g, float* u, std::size_t stride) {
    constexpr double rows[6][3] = {{1 / 4., 0, 0},           {-1 / 6., -1 / 6., -1 / 6.}, {-1 / 6., 1 / 6., -1 / 6.},
                                   {1 / 24., 1 / 12., 1 / 6.}, {1 / 24., -1 / 12., 1 / 6.}, {0, 0, 1}};
    double half[6][3];
    for (int i = 0; i < 6; i++)
        for (int x = 0; x < 3; x++) half[i][x] = rows[i][0] * g[x] + rows[i][1] * g[3 + x] + rows[i][2] * g[6 + x];
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < 6; j++)
            u[(i * 6 + j) * stride] =
                static_cast<float>(rows[j][0] * half[i][0] + rows[j][1] * half[i][1] + rows[j][2] * half[i][2]);
}

struct Picture {
    int height, width;
};

class Convolution {
    struct Group {
        int first, groups;        // outputs from `first` on, in groups of kLanes
        std::size_t weights;      // where theirs begin
    };
    int inputs_, outputs_, padded_;
    int enlarged_, channels_;  // the pixel shuffle at the end, and the channels of a pixel that is written
    std::vector<Group> groups_;
    Aligned<float> u_, bias_;

  public:
    Convolution(int inputs, int outputs, const float* weights, const float* bias, int enlarged)
        : inputs_(inputs),
          outputs_(outputs),
          padded_((inputs + kLanes - 1) / kLanes * kLanes),
          enlarged_(enlarged),
          channels_(outputs / (enlarged * enlarged)) {
        const int vectors = (outputs + kLanes - 1) / kLanes;
        const int parts = (vectors + kMostGroups - 1) / kMostGroups;
        std::size_t floats = 0;
        for (int part = 0, done = 0; part < parts; part++) {
            const int groups = (vectors - done + parts - part - 1) / (parts - part);
            groups_.push_back({done * kLanes, groups, floats});
            floats += std::size_t(kPositions) * inputs * groups * kLanes;
            done += groups;
        }
        u_.make_zeros(floats);
        for (const auto& group : groups_)
            for (int o = group.first; o < std::min(outputs, group.first + group.groups * kLanes); o++)
                for (int i = 0; i < inputs; i++)
                    into_positions(weights + (std::size_t(given(o)) * inputs + i) * 9,
                                   u_.get() + group.weights + std::size_t(i) * group.groups * kLanes + o - group.first,
                                   std::size_t(inputs) * group.groups * kLanes);
        bias_.make_zeros(vectors * kLanes);
        for (int o = 0; bias && o < outputs; o++) bias_.get()[o] = bias[given(o)];
    }

    template <typename In, typename Out>
    void run(const typename In::Stored* x, const typename Out::Stored* added, typename Out::Stored* out, int frames, Picture size,
             float slope, int threads) const {
        const int across = (size.width + kOut - 1) / kOut, down = (size.height + kOut - 1) / kOut;
        // Takes as many tiles of each band of rows as fit; all parts but the last are multiples of the tiles of a product.
        const int high = frames * down >= 8 * threads ? kRows : 1;  // unless some threads would have no work
        const int bands = (down + high - 1) / high;
        const int step = rows_together(groups_.front().groups);
        const int fit = std::max<int>(1, kCache / (kPositions * padded_ * sizeof(float) * step)) * step / high;
        const int parts = (across + fit - 1) / fit;
        const int wide = (across + parts - 1) / parts, together = (wide * high + step - 1) / step * step / high;
        in_parallel(frames * bands, threads, [&](auto&& next) {
            Room room(together * high, padded_);
            for (int band; (band = next()) >= 0;) {
                const std::size_t pixels = std::size_t(band / bands) * size.height * size.width;
                const int top = band % bands * high, rows = std::min(high, down - top);
                for (int left = 0; left < across; left += together)
                    block<In, Out>(room, x + pixels * inputs_, added ? added + pixels * outputs_ : nullptr, out + pixels * outputs_,
                                   size, top, left, rows, std::min(together, across - left), slope);
            }
        });
    }

  private:
    // Index among the given outputs of the o-th output here: outputs that a shuffle puts into one pixel are adjacent.
    int given(int o) const { return o % channels_ * enlarged_ * enlarged_ + o / channels_; }

    struct Room {
        std::size_t v_stride, m_stride;
        float *v, *m;
        Room(int tiles, int padded) {
            static thread_local Scratch scratch;
            const std::size_t most = tiles + 12;  // products are of a whole number of tiles
            v_stride = odd_lines(most * padded), m_stride = odd_lines(most * kMostGroups * kLanes);
            v = scratch.get(kPositions * (v_stride + m_stride)), m = v + kPositions * v_stride;
        }
    };

    // `columns` tiles of `rows` rows of tiles, from row `top` and column `left` on.
    template <typename In, typename Out>
    void block(Room& room, const typename In::Stored* x, const typename Out::Stored* added, typename Out::Stored* out,
               Picture size, int top, int left, int rows, int columns, float slope) const {
        const int count = rows * columns;
        for (int t = 0; t < count; t++)
            take<In>(room, x, size, (top + t / columns) * kOut, (left + t % columns) * kOut, room.v + std::size_t(t) * padded_);
        for (const auto& group : groups_) {
            switch (group.groups) {
                case 1: products<1>(room, group, count); break;
                case 2: products<2>(room, group, count); break;
                case 3: products<3>(room, group, count); break;
                default:
                    if constexpr (kMostGroups == 4) products<4>(room, group, count);
            }
            for (int t = 0; t < count; t++)
                give<Out>(room, group, t, added, out, size, (top + t / columns) * kOut, (left + t % columns) * kOut, slope);
        }
    }

    template <typename N>
    __attribute__((noinline)) void take(Room& room, const typename N::Stored* x, Picture size, int top, int left,
                                        float* v) const {
        const int y0 = top - 1, x0 = left - 1;
        for (int j = 0; j < kIn; j++)
            if (y0 + j >= 0 && y0 + j < size.height && left + kAhead < size.width)
                ahead<_MM_HINT_T0>(x + (std::ptrdiff_t(y0 + j) * size.width + left + kAhead) * inputs_, kOut * inputs_ * sizeof *x);
        const bool inside = y0 >= 0 && x0 >= 0 && y0 + kIn <= size.height && x0 + kIn <= size.width;
        for (int c = 0; c < padded_; c += kLanes) {
            const Mask mask = lanes(inputs_ - c);
            Vec half[kIn][kIn];  // [column][row after the transform down]
            for (int i = 0; i < kIn; i++) {
                Vec d[kIn];
#pragma GCC unroll 6
                for (int j = 0; j < kIn; j++) {
                    const bool here = inside || (y0 + j >= 0 && y0 + j < size.height && x0 + i >= 0 && x0 + i < size.width);
                    d[j] = here ? N::load(mask, x + (std::ptrdiff_t(y0 + j) * size.width + x0 + i) * inputs_ + c)
                                : zeros();
                }
                into(d, half[i]);
            }
#pragma GCC unroll 6
            for (int j = 0; j < kIn; j++) {
                const Vec d[kIn] = {half[0][j], half[1][j], half[2][j], half[3][j], half[4][j], half[5][j]};
                Vec t[kIn];
                into(d, t);
#pragma GCC unroll 6
                for (int i = 0; i < kIn; i++) store(v + (j * kIn + i) * room.v_stride + c, t[i]);
            }
        }
    }

    template <int G>
    __attribute__((noinline)) void products(Room& room, const Group& group, int count) const {
        constexpr int P = rows_together(G);
        for (int position = 0; position < kPositions; position++) {
            const float* u = u_.get() + group.weights + std::size_t(position) * inputs_ * G * kLanes;
            const float* v = room.v + position * room.v_stride;
            float* m = room.m + position * room.m_stride;
            for (int t = 0; t < count; t += P)
                multiply<Float32, G, P>(v + std::size_t(t) * padded_, padded_, u, inputs_, nullptr, [&](const Vec (&sum)[P][G]) {
#pragma GCC unroll 12
                    for (int p = 0; p < P; p++)
#pragma GCC unroll 4
                        for (int g = 0; g < G; g++) store(m + (std::size_t(t + p) * G + g) * kLanes, sum[p][g]);
                });
        }
    }

    template <typename N>
    __attribute__((noinline)) void give(const Room& room, const Group& group, int tile, const typename N::Stored* added,
                                        typename N::Stored* out, Picture size, int top, int left, float slope) const {
        const int rows = std::min(kOut, size.height - top), columns = std::min(kOut, size.width - left);
        const std::size_t across = std::size_t(enlarged_) * channels_, down = across * enlarged_ * size.width;
        if (left + kAhead + kOut <= size.width)
            for (int j = 0; j < rows; j++)
                ahead<_MM_HINT_ET0>(out + (top + j) * down + (left + kAhead) * across, kOut * across * sizeof *out);
        const Vec slopes = all(slope), zero = zeros();
        for (int g = 0; g < group.groups; g++) {
            const int first = group.first + g * kLanes, part = first / channels_;  // of an enlarged pixel
            const Mask mask = lanes(outputs_ - first);
            const std::size_t corner = top * down + left * across + part / enlarged_ * (down / enlarged_) +
                                       part % enlarged_ * channels_ + first % channels_;
            const float* m = room.m + (std::size_t(tile) * group.groups + g) * kLanes;
            const Vec bias = load(bias_.get() + first);
            Vec half[kIn][kOut];  // [column][row after the transform down]
#pragma GCC unroll 6
            for (int i = 0; i < kIn; i++) {
                Vec d[kIn];
#pragma GCC unroll 6
                for (int j = 0; j < kIn; j++) d[j] = load(m + (j * kIn + i) * room.m_stride);
                back(d, half[i]);
            }
#pragma GCC unroll 4
            for (int j = 0; j < kOut; j++) {
                if (j >= rows) break;
                const Vec d[kIn] = {half[0][j], half[1][j], half[2][j], half[3][j], half[4][j], half[5][j]};
                Vec y[kOut];
                back(d, y);
#pragma GCC unroll 4
                for (int i = 0; i < kOut; i++) {
                    if (i >= columns) break;
                    const std::size_t at = corner + j * down + i * across;
                    Vec sum = add(y[i], bias);
                    sum = multiply_add(slopes, least(sum, zero), most(sum, zero));
                    if (added) sum = add(sum, N::load(mask, added + at));
                    N::store(mask, out + at, sum);
                }
            }
        }
    }
};

}  // namespace

// Packs (outputs, inputs, 3, 3) weights and a bias, which may be null. `enlarged` is the factor of a pixel
// shuffle at the end, 1 for none; then each pixel has whole groups of 16 channels. Returns null if memory runs out.
UPFRAME_API void* upframe_winograd_make(int inputs, int outputs, const float* weights, const float* bias, int enlarged) {
    try {
        if (enlarged > 1 && outputs % (enlarged * enlarged * kShuffled)) return nullptr;
        return new Convolution(inputs, outputs, weights, bias, enlarged);
    } catch (...) {
        return nullptr;
    }
}

// Applies LeakyReLU of that slope (1: none) to the convolution of x, padded with zeros, and adds `added`, which may be null or
// `out` and has its type. Maps are (frames, height, width, channels), contiguous, float32 or bfloat16. Returns 0, or 1 if
// memory ran out.
UPFRAME_API int upframe_winograd_run(const void* convolution, const void* x, const void* added, void* out, int x_is_bf16,
                                     int out_is_bf16, int frames, int height, int width, float slope, int threads) {
    const auto* made = static_cast<const Convolution*>(convolution);
    [[maybe_unused]] const auto as = [&]<typename In, typename Out>(In, Out) {
        using S = typename Out::Stored;
        made->run<In, Out>(static_cast<const typename In::Stored*>(x), static_cast<const S*>(added), static_cast<S*>(out), frames,
                           {height, width}, slope, threads);
    };
    try {
#if UPFRAME_LANES == 16
        if (x_is_bf16)
            out_is_bf16 ? as(BFloat16Map{}, BFloat16Map{}) : as(BFloat16Map{}, Float32Map{});
        else
            out_is_bf16 ? as(Float32Map{}, BFloat16Map{}) : as(Float32Map{}, Float32Map{});
#else
        if (x_is_bf16 || out_is_bf16) return 1;
        as(Float32Map{}, Float32Map{});
#endif
        return 0;
    } catch (...) {
        return 1;
    }
}

UPFRAME_API void upframe_winograd_free(void* convolution) { delete static_cast<Convolution*>(convolution); }
