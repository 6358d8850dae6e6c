// The operators on a GPU, compiled by NVRTC. Tensors are dense, seen as runs of `inner` elements; run r is of channel
// r % channels, and a tensor with one step is a single run. A warp takes a tile of 512 elements at a time, in four
// loads of consecutive memory. Sums go from threads to blocks to a second kernel, always in the same order: the launch
// depends on the shape alone, and no atomics are used.
#include "fake_quant_math.h"

using namespace mixq;

typedef long long i64;

template <typename T> struct alignas(4 * sizeof(T)) Four {
    T value[4];
};

template <typename T> __device__ __forceinline__ bool aligned(const T* x) {
    return reinterpret_cast<unsigned long long>(x) % sizeof(Four<T>) == 0;
}

// Four consecutive elements, of which `left` lie in the run.
template <typename T> __device__ __forceinline__ void read(const T* x, i64 left, float (&to)[4]) {
    if (left >= 4 && aligned(x)) {
        const Four<T> four = *reinterpret_cast<const Four<T>*>(x);
#pragma unroll
        for (int j = 0; j < 4; ++j) to[j] = load(four.value[j]);
    } else {
#pragma unroll
        for (int j = 0; j < 4; ++j) to[j] = j < left ? load(x[j]) : 0.0f;
    }
}

template <typename T> __device__ __forceinline__ void write(T* x, i64 left, const float (&from)[4]) {
    if (left >= 4 && aligned(x)) {
        Four<T> four;
#pragma unroll
        for (int j = 0; j < 4; ++j) store(four.value[j], from[j]);
        *reinterpret_cast<Four<T>*>(x) = four;
    } else {
#pragma unroll
        for (int j = 0; j < 4; ++j)
            if (j < left) store(x[j], from[j]);
    }
}

// Which of the thread's sixteen elements of a tile are quantized, a bit each.
struct All {
    __device__ unsigned operator()(i64) const { return 0xffff; }
};
struct Draw {
    int threshold;
    const i64* seed;
    __device__ unsigned operator()(i64 tile) const {
        const Words drawn = philox(tile * LANES + threadIdx.x % LANES, *seed);
        unsigned keep = 0;
#pragma unroll
        for (int i = 0; i < 16; ++i)
            keep |= (static_cast<int>((drawn.w[i / 4] >> (8 * (i % 4))) & 255u) < threshold ? 1u : 0u) << i;
        return keep;
    }
};

// Call work(first of four elements, elements left in the run, bits of the four) for the tiles of a run that are this
// warp's.
template <typename Keep, typename Work>
__device__ __forceinline__ void for_fours(i64 begin, i64 inner, Keep keep, Work work) {
    const i64 warps = static_cast<i64>(gridDim.x) * (blockDim.x / LANES);
    i64 tile = static_cast<i64>(blockIdx.x) * (blockDim.x / LANES) + threadIdx.x / LANES;
    for (; tile * TILE < inner; tile += warps) {
        const unsigned bits = keep(tile);
        const i64 at = tile * TILE + threadIdx.x % LANES * 4;
#pragma unroll 2
        for (int k = 0; k < 4; ++k) work(begin + at + k * 128, inner - at - k * 128, bits >> (4 * k));
    }
}

// Sum over the block, in thread 0; every thread calls it.
__device__ __forceinline__ double block_sum(double value) {
    __shared__ double warps[LANES];
    for (int distance = LANES / 2; distance; distance /= 2) value += __shfl_down_sync(~0u, value, distance);
    __syncthreads();  // the last sum has been read
    if (threadIdx.x % LANES == 0) warps[threadIdx.x / LANES] = value;
    __syncthreads();
    value = threadIdx.x < blockDim.x / LANES ? warps[threadIdx.x] : 0.0;
    if (threadIdx.x < LANES)
        for (int distance = LANES / 2; distance; distance /= 2) value += __shfl_down_sync(~0u, value, distance);
    return value;
}

// The host is not halted to look at a step: one that is no positive finite number gives NaN.
__device__ __forceinline__ float checked(float step) {
    return step > 0.0f && step <= 3.402823466e38f ? step : bits_to_float(0x7fc00000);
}

__device__ __forceinline__ Grid grid_of(const float* step, const float* zero, i64 channel, int qmin, int qmax) {
    return {checked(step[channel]), zero[channel], static_cast<float>(qmin), static_cast<float>(qmax)};
}

template <typename T, typename Keep>
__device__ __forceinline__ void quantize(const T* x, T* y, i64 runs, i64 channels, i64 inner, const float* step,
                                         const float* zero, int qmin, int qmax, Keep keep) {
    for (i64 run = blockIdx.y; run < runs; run += gridDim.y) {
        const Grid grid = grid_of(step, zero, run % channels, qmin, qmax);
        for_fours(run * inner, inner, keep, [&](i64 at, i64 left, unsigned bits) {
            float value[4];
            read(x + at, left, value);
#pragma unroll
            for (int j = 0; j < 4; ++j) value[j] = bits >> j & 1 ? fake_quant(value[j], grid) : value[j];
            write(y + at, left, value);
        });
    }
}

// Runs too short for a warp: each element finds its channel.
template <typename T>
__device__ __forceinline__ void quantize_short(const T* x, T* y, i64 runs, i64 channels, i64 inner, const float* step,
                                               const float* zero, int qmin, int qmax) {
    const i64 threads = static_cast<i64>(gridDim.x) * blockDim.x;
    for (i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x; i < runs * inner; i += threads)
        store(y[i], fake_quant(load(x[i]), grid_of(step, zero, i / inner % channels, qmin, qmax)));
}

template <typename T, typename Keep>
__device__ __forceinline__ void quantize_backward(const T* grad, const T* x, T* dx, double* partial, i64 runs,
                                                  i64 channels, i64 inner, const float* step, const float* zero,
                                                  int qmin, int qmax, Keep keep) {
    for (i64 run = blockIdx.y; run < runs; run += gridDim.y) {
        const Grid grid = grid_of(step, zero, run % channels, qmin, qmax);
        double total = 0;
        for_fours(run * inner, inner, keep, [&](i64 at, i64 left, unsigned bits) {
            float g[4], value[4];
            read(grad + at, left, g);
            read(x + at, left, value);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                float by_step;
                const float slope = fake_quant_slope(value[j], grid, by_step);
                const bool quantized = bits >> j & 1;
                if (quantized && j < left) total += by_step * g[j];
                value[j] = g[j] * (quantized ? slope : 1.0f);
            }
            write(dx + at, left, value);
        });
        total = block_sum(total);
        if (threadIdx.x == 0) partial[run * gridDim.x + blockIdx.x] = total;
    }
}

// A block a channel.
template <typename T>
__device__ __forceinline__ void quantize_backward_short(const T* grad, const T* x, T* dx, double* partial, i64 runs,
                                                        i64 channels, i64 inner, const float* step, const float* zero,
                                                        int qmin, int qmax) {
    const i64 channel = blockIdx.x;
    const Grid grid = grid_of(step, zero, channel, qmin, qmax);
    double total = 0;
    for (i64 j = threadIdx.x; j < runs / channels * inner; j += blockDim.x) {
        const i64 at = (j / inner * channels + channel) * inner + j % inner;
        float by_step;
        const float g = load(grad[at]);
        store(dx[at], g * fake_quant_slope(load(x[at]), grid, by_step));
        total += by_step * g;
    }
    total = block_sum(total);
    if (threadIdx.x == 0) partial[channel] = total;
}

// dstep of each channel: the sum of its runs' partial sums, `blocks` a run. A block a channel.
extern "C" __global__ void sum_partials(const double* partial, float* dstep, i64 runs, i64 channels, i64 blocks) {
    const i64 channel = blockIdx.x;
    double total = 0;
    for (i64 j = threadIdx.x; j < runs / channels * blocks; j += blockDim.x)
        total += partial[(j / blocks * channels + channel) * blocks + j % blocks];
    total = block_sum(total);
    if (threadIdx.x == 0) dstep[channel] = static_cast<float>(total);
}

template <typename T> __device__ __forceinline__ void mix(const T* x, const T* y, T* z, i64 n, Draw draw) {
    for_fours(0, n, draw, [&](i64 at, i64 left, unsigned bits) {
        float a[4], b[4];
        read(x + at, left, a);
        read(y + at, left, b);
#pragma unroll
        for (int j = 0; j < 4; ++j) a[j] = bits >> j & 1 ? a[j] : b[j];
        write(z + at, left, a);
    });
}

template <typename B>
__device__ __forceinline__ void round_softly(const float* v, const B* base, float* y, i64 runs, i64 channels, i64 inner,
                                             const float* step, const float* zero, int qmin, int qmax) {
    for (i64 run = blockIdx.y; run < runs; run += gridDim.y) {
        const Grid grid = grid_of(step, zero, run % channels, qmin, qmax);
        for_fours(run * inner, inner, All(), [&](i64 at, i64 left, unsigned) {
            float value[4], floor[4];
            read(v + at, left, value);
            read(base + at, left, floor);
#pragma unroll
            for (int j = 0; j < 4; ++j) value[j] = soft_round(value[j], floor[j], grid);
            write(y + at, left, value);
        });
    }
}

template <typename B>
__device__ __forceinline__ void round_softly_backward(const float* grad, const float* v, const B* base, float* dv,
                                                      double* partial, i64 runs, i64 channels, i64 inner,
                                                      const float* step, const float* zero, int qmin, int qmax,
                                                      float beta, float lam) {
    const float scale = -2.0f * lam * beta, power = beta - 1.0f;
    for (i64 run = blockIdx.y; run < runs; run += gridDim.y) {
        const Grid grid = grid_of(step, zero, run % channels, qmin, qmax);
        double total = 0;
        for_fours(run * inner, inner, All(), [&](i64 at, i64 left, unsigned) {
            float g[4], value[4], floor[4];
            read(grad + at, left, g);
            read(v + at, left, value);
            read(base + at, left, floor);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                float by_step;
                value[j] = soft_round_gradient(g[j], value[j], floor[j], grid, scale, power, by_step);
                if (j < left) total += by_step * g[j];
            }
            write(dv + at, left, value);
        });
        total = block_sum(total);
        if (threadIdx.x == 0) partial[run * gridDim.x + blockIdx.x] = total;
    }
}

template <typename T> __device__ __forceinline__ void log_sqrt2(const T* x, T* y, i64 n, float d, int levels) {
    for_fours(0, n, All(), [&](i64 at, i64 left, unsigned) {
        float value[4];
        read(x + at, left, value);
#pragma unroll
        for (int j = 0; j < 4; ++j) value[j] = log_sqrt2_quant(value[j], d, levels);
        write(y + at, left, value);
    });
}

template <typename T>
__device__ __forceinline__ void log_sqrt2_backward(const T* grad, const T* x, T* dx, i64 n, float d, int levels) {
    for_fours(0, n, All(), [&](i64 at, i64 left, unsigned) {
        float g[4], value[4];
        read(grad + at, left, g);
        read(x + at, left, value);
#pragma unroll
        for (int j = 0; j < 4; ++j) value[j] = log_sqrt2_gradient(g[j], value[j], d, levels);
        write(dx + at, left, value);
    });
}

#define KERNEL extern "C" __global__ void
#define RUNS i64 runs, i64 channels, i64 inner
#define GRID const float *step, const float *zero, int qmin, int qmax
#define DRAW int threshold, const i64 *seed

#define VALUES(T, name)                                                                                                \
    KERNEL fake_quant_##name(const T* x, T* y, RUNS, GRID) {                                                           \
        quantize(x, y, runs, channels, inner, step, zero, qmin, qmax, All());                                          \
    }                                                                                                                  \
    KERNEL fake_quant_short_##name(const T* x, T* y, RUNS, GRID) {                                                     \
        quantize_short(x, y, runs, channels, inner, step, zero, qmin, qmax);                                           \
    }                                                                                                                  \
    KERNEL fake_quant_backward_##name(const T* grad, const T* x, T* dx, double* partial, RUNS, GRID) {                 \
        quantize_backward(grad, x, dx, partial, runs, channels, inner, step, zero, qmin, qmax, All());                 \
    }                                                                                                                  \
    KERNEL fake_quant_backward_short_##name(const T* grad, const T* x, T* dx, double* partial, RUNS, GRID) {           \
        quantize_backward_short(grad, x, dx, partial, runs, channels, inner, step, zero, qmin, qmax);                  \
    }                                                                                                                  \
    KERNEL fake_quant_drop_##name(const T* x, T* y, RUNS, GRID, DRAW) {                                                \
        quantize(x, y, runs, channels, inner, step, zero, qmin, qmax, Draw{threshold, seed});                          \
    }                                                                                                                  \
    KERNEL fake_quant_drop_backward_##name(const T* grad, const T* x, T* dx, double* partial, RUNS, GRID, DRAW) {      \
        quantize_backward(grad, x, dx, partial, runs, channels, inner, step, zero, qmin, qmax, Draw{threshold, seed}); \
    }                                                                                                                  \
    KERNEL mix_##name(const T* x, const T* y, T* z, i64 n, DRAW) { mix(x, y, z, n, Draw{threshold, seed}); }           \
    KERNEL log_sqrt2_quant_##name(const T* x, T* y, i64 n, const float* d, int levels) {                               \
        log_sqrt2(x, y, n, checked(*d), levels);                                                                       \
    }                                                                                                                  \
    KERNEL log_sqrt2_quant_backward_##name(const T* grad, const T* x, T* dx, i64 n, const float* d, int levels) {      \
        log_sqrt2_backward(grad, x, dx, n, checked(*d), levels);                                                       \
    }

VALUES(float, float32)
VALUES(Half, float16)
VALUES(BFloat16, bfloat16)

#define ROUNDING(B, name)                                                                                              \
    KERNEL soft_round_##name(const float* v, const B* base, float* y, RUNS, GRID) {                                    \
        round_softly(v, base, y, runs, channels, inner, step, zero, qmin, qmax);                                       \
    }                                                                                                                  \
    KERNEL soft_round_backward_##name(const float* grad, const float* v, const B* base, float* dv, double* partial,    \
                                      RUNS, GRID, const float* beta, const float* lam) {                               \
        round_softly_backward(grad, v, base, dv, partial, runs, channels, inner, step, zero, qmin, qmax, *beta, *lam); \
    }

ROUNDING(signed char, int8)
ROUNDING(short, int16)
