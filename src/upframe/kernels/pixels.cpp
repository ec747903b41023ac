// Pixels for reading and writing: PNG's row filters (PNG, third edition, W3C 2023, section 9), and values to 8-bit codes.

#include "kernels.h"

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

namespace {

using Byte = std::uint8_t;
constexpr std::int64_t kMostPixelBytes = 8;

// The predictor of filter 4: whichever of left, up and corner is nearest to left + up - corner (PNG 9.4).
inline Byte paeth(int left, int up, int corner) {
    const int from_left = std::abs(up - corner), from_up = std::abs(left - corner), from_corner = std::abs(left + up - 2 * corner);
    const int other = from_up <= from_corner ? up : corner;
    return static_cast<Byte>(from_left <= from_up && from_left <= from_corner ? left : other);
}

// The sum of the absolute values of bytes taken as signed.
inline std::int64_t cost(const Byte* bytes, std::int64_t count) {
    std::int64_t sum = 0;
    for (std::int64_t i = 0; i < count;) {
        const std::int64_t end = std::min<std::int64_t>(count, i + 4096);
        std::int32_t part = 0;
        for (; i < end; i++) part += std::abs(static_cast<std::int8_t>(bytes[i]));
        sum += part;
    }
    return sum;
}

// Undo one row, `left` and `corner` kept in registers.
template <int P>
void undo_paeth(const Byte* coded, const Byte* up, std::int64_t length, Byte* out) {
    int left[P] = {}, corner[P] = {};
    for (std::int64_t i = 0; i < length; i += P)
        for (int p = 0; p < P; p++) {
            const int above = up[i + p];
            left[p] = (coded[i + p] + paeth(left[p], above, corner[p])) & 255;
            corner[p] = above;
            out[i + p] = static_cast<Byte>(left[p]);
        }
}

}  // namespace

// Rows (count, length) with the best of the filters Sub, Up and Paeth for each: (count, 1 + length). Best is the smallest sum
// of absolute differences (PNG 12.7), the first of equals. `above` is the row before. Returns 1 if memory ran out.
UPFRAME_API int upframe_png_filter(const Byte* rows, const Byte* above, std::int64_t count, std::int64_t length,
                                   std::int64_t pixel_bytes, Byte* out) {
    try {
        // With zeros before them, so that the left pixel always exists.
        std::vector<Byte> here(length + kMostPixelBytes), before(length + kMostPixelBytes), guess(length);
        Byte *row = here.data() + kMostPixelBytes, *up = before.data() + kMostPixelBytes;
        std::memcpy(up, above, length);
        for (std::int64_t y = 0; y < count; y++) {
            std::memcpy(row, rows + y * length, length);
            const Byte *left = row - pixel_bytes, *corner = up - pixel_bytes;
            Byte* best = out + y * (length + 1);
            best[0] = 1;
            for (std::int64_t i = 0; i < length; i++) best[1 + i] = static_cast<Byte>(row[i] - left[i]);
            std::int64_t least = cost(best + 1, length);
            const auto consider = [&](Byte kind) {
                if (const std::int64_t sum = cost(guess.data(), length); sum < least) {
                    least = sum, best[0] = kind;
                    std::memcpy(best + 1, guess.data(), length);
                }
            };
            for (std::int64_t i = 0; i < length; i++) guess[i] = static_cast<Byte>(row[i] - up[i]);
            consider(2);
            for (std::int64_t i = 0; i < length; i++) guess[i] = static_cast<Byte>(row[i] - paeth(left[i], up[i], corner[i]));
            consider(4);
            std::swap(row, up);
        }
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

// The reverse, for all five filters: (count, 1 + length), kinds from 0 to 4, to (count, length). Returns 2 for another kind.
UPFRAME_API int upframe_png_unfilter(const Byte* coded, const Byte* above, std::int64_t count, std::int64_t length,
                                     std::int64_t pixel_bytes, Byte* out) {
    for (std::int64_t y = 0; y < count; y++, above = out, out += length) {
        const Byte kind = coded[0], *data = coded + 1;
        coded += length + 1;
        const auto left = [&](std::int64_t i) { return i < pixel_bytes ? 0 : out[i - pixel_bytes]; };
        if (kind == 0) {
            std::memcpy(out, data, length);
        } else if (kind == 1) {
            for (std::int64_t i = 0; i < length; i++) out[i] = static_cast<Byte>(data[i] + left(i));
        } else if (kind == 2) {
            for (std::int64_t i = 0; i < length; i++) out[i] = static_cast<Byte>(data[i] + above[i]);
        } else if (kind == 3) {
            for (std::int64_t i = 0; i < length; i++) out[i] = static_cast<Byte>(data[i] + (left(i) + above[i]) / 2);
        } else if (kind == 4 && pixel_bytes == 3) {
            undo_paeth<3>(data, above, length, out);
        } else if (kind == 4 && pixel_bytes == 4) {
            undo_paeth<4>(data, above, length, out);
        } else if (kind == 4 && pixel_bytes == 6) {
            undo_paeth<6>(data, above, length, out);
        } else if (kind == 4) {
            for (std::int64_t i = 0; i < length; i++) {
                const int corner = i < pixel_bytes ? 0 : above[i - pixel_bytes];
                out[i] = static_cast<Byte>(data[i] + paeth(left(i), above[i], corner));
            }
        } else {
            return 2;
        }
    }
    return 0;
}

namespace {

// 16 values in [0, 1] as codes, halves to even, clipped.
inline __m128i codes(__m512 x) {
    const __m512 white = _mm512_set1_ps(255.0f);
    const __m512 clipped = _mm512_min_ps(_mm512_max_ps(_mm512_mul_ps(x, white), _mm512_setzero_ps()), white);
    return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(clipped));
}

// 16 pixels of three planes, side by side.
inline void store_interleaved(Byte* out, __m128i red, __m128i green, __m128i blue) {
    constexpr char no = -1;
    const __m128i r0 = _mm_setr_epi8(0, no, no, 1, no, no, 2, no, no, 3, no, no, 4, no, no, 5);
    const __m128i g0 = _mm_setr_epi8(no, 0, no, no, 1, no, no, 2, no, no, 3, no, no, 4, no, no);
    const __m128i b0 = _mm_setr_epi8(no, no, 0, no, no, 1, no, no, 2, no, no, 3, no, no, 4, no);
    const __m128i r1 = _mm_setr_epi8(no, no, 6, no, no, 7, no, no, 8, no, no, 9, no, no, 10, no);
    const __m128i g1 = _mm_setr_epi8(5, no, no, 6, no, no, 7, no, no, 8, no, no, 9, no, no, 10);
    const __m128i b1 = _mm_setr_epi8(no, 5, no, no, 6, no, no, 7, no, no, 8, no, no, 9, no, no);
    const __m128i r2 = _mm_setr_epi8(no, 11, no, no, 12, no, no, 13, no, no, 14, no, no, 15, no, no);
    const __m128i g2 = _mm_setr_epi8(no, no, 11, no, no, 12, no, no, 13, no, no, 14, no, no, 15, no);
    const __m128i b2 = _mm_setr_epi8(10, no, no, 11, no, no, 12, no, no, 13, no, no, 14, no, no, 15);
    const auto mixed = [&](__m128i r, __m128i g, __m128i b) {
        return _mm_or_si128(_mm_or_si128(_mm_shuffle_epi8(red, r), _mm_shuffle_epi8(green, g)), _mm_shuffle_epi8(blue, b));
    };
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), mixed(r0, g0, b0));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16), mixed(r1, g1, b1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 32), mixed(r2, g2, b2));
}

inline Byte code(float x) { return static_cast<Byte>(_mm_extract_epi8(codes(_mm512_set1_ps(x)), 0)); }

}  // namespace

// Values (channels, height, width) with strides in values, float32 in [0, 1], to codes (height, width, channels).
UPFRAME_API void upframe_codes8(const float* x, std::int64_t channel_stride, std::int64_t row_stride, std::int64_t column_stride,
                                std::int64_t channels, std::int64_t height, std::int64_t width, Byte* out) {
    for (std::int64_t y = 0; y < height; y++, x += row_stride, out += width * channels) {
        std::int64_t i = 0;  // values of the row that are done
        if (channel_stride == 1 && column_stride == channels) {
            for (; i + 16 <= width * channels; i += 16)
                _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), codes(_mm512_loadu_ps(x + i)));
        } else if (column_stride == 1 && channels == 3) {
            for (std::int64_t w = 0; w + 16 <= width; w += 16, i += 48) {
                const auto plane = [&](int c) { return codes(_mm512_loadu_ps(x + c * channel_stride + w)); };
                store_interleaved(out + i, plane(0), plane(1), plane(2));
            }
        }
        for (; i < width * channels; i++) out[i] = code(x[i / channels * column_stride + i % channels * channel_stride]);
    }
}
