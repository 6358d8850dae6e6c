// The arithmetic of the operators, a scalar at a time, for the CPU and the CUDA kernels alike.
//
// Every line is made of single IEEE operations in fp32, in the order of reference.py; compiled without contraction to
// fused multiply-adds it gives the same bits everywhere. That is why exp2 and log2 are written out here: each library
// rounds its own way. Integer types are int (32 bits) and long long (64 bits), as NVRTC has no <cstdint>.
#pragma once

#ifdef __CUDACC_RTC__
#define MIXQ __host__ __device__ __forceinline__
#else
#include <cmath>
#include <cstring>
#define MIXQ static inline __attribute__((always_inline))
#endif

namespace mixq {

MIXQ float bits_to_float(int bits) {
#ifdef __CUDA_ARCH__
    return __int_as_float(bits);
#else
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
#endif
}

MIXQ int float_to_bits(float value) {
#ifdef __CUDA_ARCH__
    return __float_as_int(value);
#else
    int bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
#endif
}

// The dtypes of tensors, read as float and written with rounding to nearest even.
struct Half {
    unsigned short bits;
};
struct BFloat16 {  // the upper half of a float
    unsigned short bits;
};

MIXQ float load(float x) { return x; }
MIXQ float load(signed char x) { return x; }
MIXQ float load(short x) { return x; }
MIXQ float load(BFloat16 x) { return bits_to_float(static_cast<int>(static_cast<unsigned>(x.bits) << 16)); }
MIXQ float load(Half x) {
#ifdef __CUDA_ARCH__
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
    return value;
#else
    _Float16 value;
    memcpy(&value, &x, sizeof value);
    return static_cast<float>(value);
#endif
}

MIXQ void store(float& to, float x) { to = x; }
MIXQ void store(BFloat16& to, float x) {
    const unsigned bits = static_cast<unsigned>(float_to_bits(x));
    const unsigned rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    to.bits = static_cast<unsigned short>(x != x ? 0x7fc0u : rounded);
}
MIXQ void store(Half& to, float x) {
#ifdef __CUDA_ARCH__
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(x));
#else
    const _Float16 value = static_cast<_Float16>(x);
    memcpy(&to, &value, sizeof value);
#endif
}

// NaN stays NaN: these are x86's max and min, and PyTorch's clamp.
MIXQ float at_least(float x, float low) { return x < low ? low : x; }
MIXQ float at_most(float x, float high) { return x > high ? high : x; }
MIXQ float clamp(float x, float low, float high) { return at_most(at_least(x, low), high); }

constexpr float SMALLEST = 1.17549435e-38f;  // normal number

// ---- fake_quant -----------------------------------------------------------------------------------------------------

struct Grid {
    float step, zero_point, qmin, qmax;
};

MIXQ float fake_quant(float x, Grid g) {
    const float level = rintf(x / g.step) + g.zero_point;
    return (clamp(level, g.qmin, g.qmax) - g.zero_point) * g.step;
}

// 1 where the grid does not clip, else 0; `by_step` becomes the derivative by the step.
MIXQ float fake_quant_slope(float x, Grid g, float& by_step) {
    const float ratio = x / g.step;
    const float rounded = rintf(ratio);
    const float level = rounded + g.zero_point;
    const float clipped = clamp(level, g.qmin, g.qmax);
    const bool inside = level == clipped;
    by_step = inside ? rounded - ratio : clipped - g.zero_point;
    return inside ? 1.0f : 0.0f;
}

// ---- the mask of fake_quant_drop ------------------------------------------------------------------------------------

// Philox4x32-10 (Salmon et al. 2011): four random words of a counter and a 64-bit seed.
struct Words {
    unsigned w[4];
};

MIXQ Words philox(unsigned long long counter, unsigned long long seed) {
    unsigned c0 = static_cast<unsigned>(counter), c1 = static_cast<unsigned>(counter >> 32), c2 = 0, c3 = 0;
    unsigned k0 = static_cast<unsigned>(seed), k1 = static_cast<unsigned>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const unsigned long long a = 0xD2511F53ull * c0, b = 0xCD9E8D57ull * c2;
        c0 = static_cast<unsigned>(b >> 32) ^ c1 ^ k0;
        c1 = static_cast<unsigned>(b);
        c2 = static_cast<unsigned>(a >> 32) ^ c3 ^ k1;
        c3 = static_cast<unsigned>(a);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// Element e of a tensor, counted in memory order, takes a byte of these words. 512 elements are a tile of 32 counters:
// word k of counter t * 32 + lane serves elements t * 512 + k * 128 + lane * 4 to + 3, so that the 32 threads of a warp
// touch consecutive memory. A value is kept, that is quantized, where its byte is below 256 p.
constexpr int TILE = 512, LANES = 32;

// ---- soft_round -----------------------------------------------------------------------------------------------------

constexpr float STRETCH = 1.2f, GAMMA = -0.1f;  // AdaRound: h(v) = clip(STRETCH sigmoid(v) + GAMMA, 0, 1)
constexpr float LOG2_E = 1.44269504088896341f;

// 2^t for t in [-126, 127], clamped; the Taylor series of 2^f = e^(f ln 2), |f| <= 1/2, to the sixth power.
MIXQ float exp2_clamped(float t) {
    t = clamp(t, -126.0f, 127.0f);
    const float n = rintf(t);
    const float f = t - n;
    float p = 1.5403530393381608e-4f;
    p = p * f + 1.3333558146428441e-3f;
    p = p * f + 9.6181291076284772e-3f;
    p = p * f + 5.5504108664821580e-2f;
    p = p * f + 2.4022650695910071e-1f;
    p = p * f + 6.9314718055994531e-1f;
    p = p * f + 1.0f;
    return p * bits_to_float((static_cast<int>(n) + 127) << 23);
}

// log2 of a positive normal float: its exponent and, for m in [1/sqrt 2, sqrt 2), 2 atanh((m - 1) / (m + 1)) / ln 2.
MIXQ float log2_normal(float x) {
    const int bits = float_to_bits(x);
    const int exponent = (bits - 0x3f3504f3) >> 23;  // the bits of 1 / sqrt 2
    const float m = bits_to_float(bits - (exponent << 23));
    const float s = (m - 1.0f) / (m + 1.0f);
    const float s2 = s * s;
    float p = 3.2059889797532521e-1f;
    p = p * s2 + 4.1219858311113240e-1f;
    p = p * s2 + 5.7707801635558535e-1f;
    p = p * s2 + 9.6179669392597560e-1f;
    p = p * s2 + 2.8853900817779268f;
    return p * s + static_cast<float>(exponent);
}

MIXQ float sigmoid(float v) { return 1.0f / (1.0f + exp2_clamped(v * -LOG2_E)); }

MIXQ float soft_round(float v, float base, Grid g) {
    const float h = clamp(sigmoid(v) * STRETCH + GAMMA, 0.0f, 1.0f);
    const float level = (h + base) + g.zero_point;
    return (clamp(level, g.qmin, g.qmax) - g.zero_point) * g.step;
}

// Gradient to v, the regulariser's lam * sum(1 - |2 h - 1|^beta) included, where `scale` is -2 lam beta and `power`
// beta - 1. `by_step` becomes the derivative by the step.
MIXQ float soft_round_gradient(float grad, float v, float base, Grid g, float scale, float power, float& by_step) {
    const float s = sigmoid(v);
    const float stretched = s * STRETCH + GAMMA;
    const float h = clamp(stretched, 0.0f, 1.0f);
    const float level = (h + base) + g.zero_point;
    const float clipped = clamp(level, g.qmin, g.qmax);
    by_step = clipped - g.zero_point;
    const float centred = h * 2.0f - 1.0f;
    const float distance = at_least(fabsf(centred), SMALLEST);
    const float regulariser = copysignf(exp2_clamped(log2_normal(distance) * power), centred) * scale;
    const float through = level == clipped ? grad * g.step : 0.0f;
    const float slope = stretched == h ? s * STRETCH * (1.0f - s) : 0.0f;
    return (through + regulariser) * slope;
}

// ---- log_sqrt2_quant ------------------------------------------------------------------------------------------------

// round(-2 log2 r), at least 0, from the exponent and two thresholds of the mantissa. `dropped` where r is 0 or so
// small that the value becomes 0: below the last level, negative or subnormal.
MIXQ int log_sqrt2_level(float r, int levels, bool& dropped) {
    const int bits = float_to_bits(r);
    const int mantissa = bits & 0x7fffff;
    const int q = -2 * (((bits >> 23) & 255) - 127) - (mantissa >= 0x1837f1 ? 1 : 0) - (mantissa >= 0x5744fd ? 1 : 0);
    dropped = r < SMALLEST || q >= levels;
    return q < 0 ? 0 : q;
}

MIXQ float log_sqrt2_quant(float x, float d, int levels) {
    const float r = x / d;
    bool dropped;
    const int q = log_sqrt2_level(r, levels, dropped);
    const float power = bits_to_float((127 - (q >> 1)) << 23) * ((q & 1) ? 0.707106781186547524f : 1.0f);
    return r != r ? r : (dropped ? 0.0f : power * d);
}

MIXQ float log_sqrt2_gradient(float grad, float x, float d, int levels) {
    bool dropped;
    log_sqrt2_level(x / d, levels, dropped);
    return dropped ? 0.0f : grad;
}

}  // namespace mixq
