// The operators on a CPU. Tensors are dense, seen as runs of `inner` elements; run r is of channel r % channels, and a
// tensor with one step is a single run. Work is cut into pieces that depend on the shape alone, and sums are taken
// piece by piece in order: results do not depend on the number of threads. The loops are written for the compiler to
// vectorise.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "fake_quant_math.h"

using namespace mixq;

namespace {

constexpr int64_t PIECE = 2048;  // elements; four tiles of the mask, and all that a piece needs fits the first cache
constexpr int64_t WORTH_A_THREAD = 1 << 15;

struct Shape {
    int64_t runs, channels, inner;
    int64_t size() const { return runs * inner; }
    int64_t rows() const { return runs / channels; }
};

int team(int64_t size, int threads) { return static_cast<int>(std::clamp<int64_t>(size / WORTH_A_THREAD, 1, threads)); }

// Call work(piece, channel, begin, length) for every piece of every run of one channel. Returns the pieces of a run.
template <typename Work> int64_t for_pieces(Shape shape, int threads, Work work) {
    const int64_t per_run = (shape.inner + PIECE - 1) / PIECE, pieces = shape.runs * per_run;
#pragma omp parallel for schedule(static) num_threads(team(shape.size(), threads))
    for (int64_t piece = 0; piece < pieces; ++piece) {
        const int64_t run = piece / per_run, at = (piece % per_run) * PIECE;
        work(piece, run % shape.channels, run * shape.inner + at, std::min(PIECE, shape.inner - at));
    }
    return per_run;
}

// Call work(chunk, first row, rows) where each channel is one element wide, chunks of about 8 pieces.
template <typename Work> int64_t for_rows(Shape shape, int threads, Work work) {
    const int64_t rows = std::max<int64_t>(1, 8 * PIECE / shape.channels), chunks = (shape.rows() + rows - 1) / rows;
#pragma omp parallel for schedule(static) num_threads(team(shape.size(), threads))
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
        work(chunk, chunk * rows, std::min(rows, shape.rows() - chunk * rows));
    return chunks;
}

double sum(const float* x, int64_t n) {
    double lanes[8] = {}, total = 0;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int lane = 0; lane < 8; ++lane) lanes[lane] += x[i + lane];
    for (; i < n; ++i) total += x[i];
    for (double lane : lanes) total += lane;
    return total;
}

// Sums of pieces -> sums of channels.
void gather(const std::vector<double>& pieces, Shape shape, int64_t per_run, float* out) {
    for (int64_t c = 0; c < shape.channels; ++c) {
        double total = 0;
        for (int64_t run = c; run < shape.runs; run += shape.channels)
            for (int64_t p = 0; p < per_run; ++p) total += pieces[run * per_run + p];
        out[c] = static_cast<float>(total);
    }
}

// The mask of the piece that begins at `begin`, a multiple of TILE: 1 where a value is quantized.
struct Mask {
    int threshold;
    uint64_t seed;
    void fill(uint8_t* keep, int64_t begin, int64_t length) const {
        alignas(64) uint32_t words[TILE / 4];
        for (int64_t tile = 0; tile * TILE < length; ++tile) {
            const uint64_t first = (begin / TILE + tile) * LANES;
            for (int lane = 0; lane < LANES; ++lane) {
                const Words drawn = philox(first + lane, seed);
                for (int k = 0; k < 4; ++k) words[k * LANES + lane] = drawn.w[k];
            }
            uint8_t bytes[TILE];
            memcpy(bytes, words, TILE);
            const auto highest = static_cast<uint8_t>(threshold - 1);
            for (int i = 0; i < TILE; ++i) keep[tile * TILE + i] = bytes[i] <= highest && threshold > 0;
        }
    }
};

Grid grid_of(const float* step, const float* zero_point, int64_t channel, int qmin, int qmax) {
    return {step[channel], zero_point[channel], static_cast<float>(qmin), static_cast<float>(qmax)};
}

template <typename T>
void quantize(const T* x, T* y, Shape shape, const float* step, const float* zero, int qmin, int qmax, int threads) {
    if (shape.inner == 1 && shape.channels > 1) {
        for_rows(shape, threads, [=](int64_t, int64_t first, int64_t rows) {
            for (int64_t at = first * shape.channels; rows--; at += shape.channels)
                for (int64_t c = 0; c < shape.channels; ++c)
                    store(y[at + c], fake_quant(load(x[at + c]), grid_of(step, zero, c, qmin, qmax)));
        });
        return;
    }
    for_pieces(shape, threads, [=](int64_t, int64_t channel, int64_t begin, int64_t length) {
        const Grid grid = grid_of(step, zero, channel, qmin, qmax);
        for (int64_t i = begin; i < begin + length; ++i) store(y[i], fake_quant(load(x[i]), grid));
    });
}

template <typename T>
void quantize_backward(const T* grad, const T* x, T* dx, float* dstep, Shape shape, const float* step,
                       const float* zero, int qmin, int qmax, int threads) {
    if (shape.inner == 1 && shape.channels > 1) {
        const int64_t width = shape.channels;
        const int64_t chunks = for_rows(shape, 1, [](int64_t, int64_t, int64_t) {});
        std::vector<double> sums(chunks * width);
        for_rows(shape, threads, [=, &sums](int64_t chunk, int64_t first, int64_t rows) {
            double* total = &sums[chunk * width];
            for (int64_t at = first * width; rows--; at += width)
                for (int64_t c = 0; c < width; ++c) {
                    float by_step;
                    const float g = load(grad[at + c]);
                    store(dx[at + c],
                          g * fake_quant_slope(load(x[at + c]), grid_of(step, zero, c, qmin, qmax), by_step));
                    total[c] += by_step * g;
                }
        });
        gather(sums, {chunks * width, width, 1}, 1, dstep);
        return;
    }
    const int64_t per_run = (shape.inner + PIECE - 1) / PIECE;
    std::vector<double> sums(shape.runs * per_run);
    for_pieces(shape, threads, [=, &sums](int64_t piece, int64_t channel, int64_t begin, int64_t length) {
        const Grid grid = grid_of(step, zero, channel, qmin, qmax);
        float part[PIECE];
        for (int64_t i = 0; i < length; ++i) {
            float by_step;
            const float g = load(grad[begin + i]);
            store(dx[begin + i], g * fake_quant_slope(load(x[begin + i]), grid, by_step));
            part[i] = by_step * g;
        }
        sums[piece] = sum(part, length);
    });
    gather(sums, shape, per_run, dstep);
}

template <typename T> void drop(const T* x, T* y, int64_t n, Grid grid, Mask mask, int threads) {
    for_pieces({1, 1, n}, threads, [=](int64_t, int64_t, int64_t begin, int64_t length) {
        uint8_t keep[PIECE];
        mask.fill(keep, begin, length);
        for (int64_t i = 0; i < length; ++i) {
            const float value = load(x[begin + i]), quantized = fake_quant(value, grid);
            store(y[begin + i], keep[i] ? quantized : value);
        }
    });
}

template <typename T>
void drop_backward(const T* grad, const T* x, T* dx, float* dstep, int64_t n, Grid grid, Mask mask, int threads) {
    const Shape shape{1, 1, n};
    const int64_t per_run = (n + PIECE - 1) / PIECE;
    std::vector<double> sums(per_run);
    for_pieces(shape, threads, [=, &sums](int64_t piece, int64_t, int64_t begin, int64_t length) {
        uint8_t keep[PIECE];
        float part[PIECE];
        mask.fill(keep, begin, length);
        for (int64_t i = 0; i < length; ++i) {
            float by_step;
            const float g = load(grad[begin + i]), slope = fake_quant_slope(load(x[begin + i]), grid, by_step);
            const float through = by_step * g;
            store(dx[begin + i], g * (keep[i] ? slope : 1.0f));
            part[i] = keep[i] ? through : 0.0f;
        }
        sums[piece] = sum(part, length);
    });
    gather(sums, shape, per_run, dstep);
}

template <typename Bits> void mix(const Bits* x, const Bits* y, Bits* z, int64_t n, Mask mask, int threads) {
    for_pieces({1, 1, n}, threads, [=](int64_t, int64_t, int64_t begin, int64_t length) {
        uint8_t keep[PIECE];
        mask.fill(keep, begin, length);
        for (int64_t i = 0; i < length; ++i) {
            const Bits one = x[begin + i], other = y[begin + i];
            z[begin + i] = keep[i] ? one : other;
        }
    });
}

template <typename B>
void round_softly(const float* v, const B* base, float* y, Shape shape, const float* step, const float* zero, int qmin,
                  int qmax, int threads) {
    for_pieces(shape, threads, [=](int64_t, int64_t channel, int64_t begin, int64_t length) {
        const Grid grid = grid_of(step, zero, channel, qmin, qmax);
        for (int64_t i = begin; i < begin + length; ++i) y[i] = soft_round(v[i], base[i], grid);
    });
}

template <typename B>
void round_softly_backward(const float* grad, const float* v, const B* base, float* dv, float* dstep, Shape shape,
                           const float* step, const float* zero, int qmin, int qmax, float beta, float lam,
                           int threads) {
    const float scale = -2.0f * lam * beta, power = beta - 1.0f;
    const int64_t per_run = (shape.inner + PIECE - 1) / PIECE;
    std::vector<double> sums(shape.runs * per_run);
    for_pieces(shape, threads, [=, &sums](int64_t piece, int64_t channel, int64_t begin, int64_t length) {
        const Grid grid = grid_of(step, zero, channel, qmin, qmax);
        float part[PIECE];
        for (int64_t i = 0; i < length; ++i) {
            float by_step;
            const float g = grad[begin + i];
            dv[begin + i] = soft_round_gradient(g, v[begin + i], base[begin + i], grid, scale, power, by_step);
            part[i] = by_step * g;
        }
        sums[piece] = sum(part, length);
    });
    gather(sums, shape, per_run, dstep);
}

}  // namespace

// One function a dtype; the caller has checked every argument.
#define RUNS int64_t runs, int64_t channels, int64_t inner
#define GRID const float *step, const float *zero, int qmin, int qmax

#define VALUES(T, name)                                                                                              \
    extern "C" void fake_quant_##name(const T* x, T* y, RUNS, GRID, int threads) {                                   \
        quantize(x, y, {runs, channels, inner}, step, zero, qmin, qmax, threads);                                    \
    }                                                                                                                \
    extern "C" void fake_quant_backward_##name(const T* grad, const T* x, T* dx, float* dstep, RUNS, GRID,           \
                                               int threads) {                                                        \
        quantize_backward(grad, x, dx, dstep, {runs, channels, inner}, step, zero, qmin, qmax, threads);             \
    }                                                                                                                \
    extern "C" void fake_quant_drop_##name(const T* x, T* y, int64_t n, GRID, int threshold, const int64_t* seed,    \
                                           int threads) {                                                            \
        const Mask mask{threshold, static_cast<uint64_t>(*seed)};                                                    \
        drop(x, y, n, grid_of(step, zero, 0, qmin, qmax), mask, threads);                                            \
    }                                                                                                                \
    extern "C" void fake_quant_drop_backward_##name(const T* grad, const T* x, T* dx, float* dstep, int64_t n, GRID, \
                                                    int threshold, const int64_t* seed, int threads) {               \
        const Mask mask{threshold, static_cast<uint64_t>(*seed)};                                                    \
        drop_backward(grad, x, dx, dstep, n, grid_of(step, zero, 0, qmin, qmax), mask, threads);                     \
    }                                                                                                                \
    extern "C" void log_sqrt2_quant_##name(const T* x, T* y, int64_t n, const float* d, int levels, int threads) {   \
        for_pieces({1, 1, n}, threads, [=](int64_t, int64_t, int64_t begin, int64_t length) {                        \
            const float largest = *d;                                                                                \
            for (int64_t i = begin; i < begin + length; ++i)                                                         \
                store(y[i], log_sqrt2_quant(load(x[i]), largest, levels));                                           \
        });                                                                                                          \
    }                                                                                                                \
    extern "C" void log_sqrt2_quant_backward_##name(const T* grad, const T* x, T* dx, int64_t n, const float* d,     \
                                                    int levels, int threads) {                                       \
        for_pieces({1, 1, n}, threads, [=](int64_t, int64_t, int64_t begin, int64_t length) {                        \
            const float largest = *d;                                                                                \
            for (int64_t i = begin; i < begin + length; ++i)                                                         \
                store(dx[i], log_sqrt2_gradient(load(grad[i]), load(x[i]), largest, levels));                        \
        });                                                                                                          \
    }

#define MIXED(T, name)                                                                                      \
    extern "C" void mix_##name(const T* x, const T* y, T* z, int64_t n, int threshold, const int64_t* seed, \
                               int threads) {                                                               \
        mix(x, y, z, n, Mask{threshold, static_cast<uint64_t>(*seed)}, threads);                            \
    }

VALUES(float, float32)
VALUES(Half, float16)
VALUES(BFloat16, bfloat16)

MIXED(uint32_t, float32)
MIXED(uint16_t, float16)
MIXED(uint16_t, bfloat16)

#define ROUNDING(B, name)                                                                                             \
    extern "C" void soft_round_##name(const float* v, const B* base, float* y, RUNS, GRID, int threads) {             \
        round_softly(v, base, y, {runs, channels, inner}, step, zero, qmin, qmax, threads);                           \
    }                                                                                                                 \
    extern "C" void soft_round_backward_##name(const float* grad, const float* v, const B* base, float* dv,           \
                                               float* dstep, RUNS, GRID, const float* beta, const float* lam,         \
                                               int threads) {                                                         \
        round_softly_backward(grad, v, base, dv, dstep, {runs, channels, inner}, step, zero, qmin, qmax, *beta, *lam, \
                              threads);                                                                               \
    }

ROUNDING(int8_t, int8)
ROUNDING(int16_t, int16)
