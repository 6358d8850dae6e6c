// kernels.cu on CPU threads: a thread for each thread of a block, one block after the other. It shows what the kernels
// compute, their indices, tails and reductions; not their speed, and not races between blocks.
#include <barrier>
#include <cmath>
#include <memory>
#include <thread>
#include <vector>

struct Index {
    unsigned x, y, z;
};
static thread_local Index threadIdx, blockIdx;
static Index blockDim, gridDim;
static std::unique_ptr<std::barrier<>> block;
static std::vector<std::unique_ptr<std::barrier<>>> warps;
static double exchanged[1024];

static void __syncthreads() { block->arrive_and_wait(); }

static double __shfl_down_sync(unsigned, double value, int distance) {
    const unsigned thread = threadIdx.x;
    std::barrier<>& warp = *warps[thread / 32];
    exchanged[thread] = value;
    warp.arrive_and_wait();
    const double other = thread % 32 + distance < 32 ? exchanged[thread + distance] : value;
    warp.arrive_and_wait();
    return other;
}

#define __device__
#define __global__
#define __forceinline__ inline
#define __shared__ static
#include "kernels.cu"

// Every parameter of a kernel is an integer or a pointer, and so goes in a machine word.
using Word = long long;
using Kernel = void (*)(Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word, Word);

extern "C" void emulate(Kernel kernel, unsigned columns, unsigned rows, unsigned threads, const Word* a) {
    gridDim = {columns, rows, 1};
    blockDim = {threads, 1, 1};
    block = std::make_unique<std::barrier<>>(threads);
    warps.clear();
    for (unsigned i = 0; i < threads / 32; ++i) warps.push_back(std::make_unique<std::barrier<>>(32));
    std::vector<std::thread> running;
    for (unsigned i = 0; i < threads; ++i)
        running.emplace_back([=] {
            threadIdx = {i, 0, 0};
            for (unsigned y = 0; y < rows; ++y)
                for (unsigned x = 0; x < columns; ++x) {
                    blockIdx = {x, y, 0};
                    kernel(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13],
                           a[14], a[15]);
                    block->arrive_and_wait();
                }
        });
    for (std::thread& thread : running) thread.join();
}
