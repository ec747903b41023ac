// R'G'B' to Y'CbCr, like media/video/colour.py: every product and sum is rounded separately and in the same order, so that the
// codes are equal bit for bit.

#include "kernels.h"

#include <algorithm>
#include <cstdint>
#include <new>
#include <vector>

// A fused multiply-add would round once instead of twice.
#pragma GCC optimize("fp-contract=off")

namespace {

struct Numbers {
    float red, green, blue;       // luma weights of R', G' and B'
    float luma_scale, luma_zero;  // codes for a 16-bit sample, and what stands for black, with the half that rounds
    float blue_scale, red_scale, chroma_zero;
    float top;
};

enum class Across { no, cosited, midway };

class Reducer {
    const Numbers& n_;
    Across across_;
    int width_, small_width_;
    std::vector<float> cb_, cr_, miss_;

  public:
    Reducer(const Numbers& n, Across across, int width)
        : n_(n), across_(across), width_(width), small_width_(across == Across::no ? width : (width + 1) / 2), cb_(width), cr_(width),
          miss_(width / 2 + 1) {}

    int small_width() const { return small_width_; }

    // A row of samples to luma, and to chroma that is as wide as that plane.
    template <typename Code>
    void row(const std::uint16_t* rgb, Code* luma, float* cb, float* cr) {
        float *b_less = cb_.data(), *r_less = cr_.data();
        for (int x = 0; x < width_; x++) {
            const float r = rgb[3 * x], b = rgb[3 * x + 2];
            float y = rgb[3 * x + 1] * n_.green;
            y += n_.red * r;
            y += n_.blue * b;
            b_less[x] = b - y;
            r_less[x] = r - y;
            y *= n_.luma_scale;
            y += n_.luma_zero;
            luma[x] = static_cast<Code>(static_cast<std::int32_t>(std::min(y, n_.top)));
        }
        reduce(b_less, cb);
        reduce(r_less, cr);
    }

  private:
    void reduce(const float* plane, float* small) {
        const int odd = width_ / 2, inner = small_width_ - 1;
        switch (across_) {
            case Across::no: std::copy(plane, plane + width_, small); return;
            case Across::midway:
                for (int i = 0; i < odd; i++) small[i] = (plane[2 * i] + plane[2 * i + 1]) * 0.5f;
                if (odd < small_width_) small[odd] = plane[2 * odd];
                return;
            case Across::cosited:
                for (int i = 0; i < odd; i++) {
                    float miss = plane[2 * i + 1] - plane[2 * i];
                    if (i < inner) miss -= 0.5f * (plane[2 * i + 2] - plane[2 * i]);
                    miss_[i] = miss * 0.25f;
                }
                for (int i = 0; i < small_width_; i++) {
                    float sum = plane[2 * i];
                    if (i < odd) sum += miss_[i];
                    if (i > 0) sum += miss_[i - 1];
                    small[i] = sum;
                }
                if (odd > 0) small[0] += miss_[0];
        }
    }
};

template <typename Code>
void convert(const std::uint16_t* rgb, Code* luma, Code* cb, Code* cr, int height, int width, Across across, bool halves_rows,
             const Numbers& n) {
    Reducer reducer(n, across, width);
    const int small = reducer.small_width();
    std::vector<float> rows(4 * std::size_t(small));
    float *b[2] = {rows.data(), rows.data() + small}, *r[2] = {rows.data() + 2 * small, rows.data() + 3 * small};
    const int step = halves_rows ? 2 : 1;
    const auto finish = [&](const float* const (&values)[2], int count, float scale, Code* out) {
        for (int i = 0; i < small; i++) {
            float v = values[0][i];
            if (count == 2) v = (v + values[1][i]) * 0.5f;
            v *= scale;
            v += n.chroma_zero;
            out[i] = static_cast<Code>(static_cast<std::int32_t>(std::max(0.0f, std::min(v, n.top))));
        }
    };
    for (int y = 0; y < height; y += step) {
        const int count = std::min(step, height - y);
        for (int i = 0; i < count; i++)
            reducer.row(rgb + std::size_t(y + i) * width * 3, luma + std::size_t(y + i) * width, b[i], r[i]);
        const std::size_t at = std::size_t(y / step) * small;
        const float *const blues[2] = {b[0], b[1]}, *const reds[2] = {r[0], r[1]};
        finish(blues, count, n.blue_scale, cb + at);
        finish(reds, count, n.red_scale, cr + at);
    }
}

}  // namespace

// 16-bit samples (height, width, 3) to planes of codes, 8 bits or more in 16. `across`: 0 chroma as wide as luma; half as wide, 1 on
// the even columns, 2 between two. `numbers` are those of `Numbers`. Returns 0, or 1 if memory ran out.
UPFRAME_API int upframe_from_rgb16(const std::uint16_t* rgb, void* luma, void* cb, void* cr, int height, int width, int is_8bit,
                                   int across, int halves_rows, const float* numbers) {
    try {
        const Numbers n{numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6], numbers[7], numbers[8]};
        const auto as = [&]<typename Code>(Code) {
            convert(rgb, static_cast<Code*>(luma), static_cast<Code*>(cb), static_cast<Code*>(cr), height, width,
                    static_cast<Across>(across), halves_rows != 0, n);
        };
        is_8bit ? as(std::uint8_t{}) : as(std::uint16_t{});
        return 0;
    } catch (...) {
        return 1;
    }
}
