// Runs CUDA kernels on the CPU, for tests: a thread for every thread of a block, the blocks one after
// the other, a barrier for __syncthreads, exchange buffers for shuffles. It is slow and no backend, but
// ThreadSanitizer sees every race for shared memory that a GPU might run into.
//
// What kernels may use: threadIdx.x, blockIdx, blockDim.x, gridDim, static __shared__ arrays,
// __syncthreads, __syncwarp, __shfl_xor_sync and __shfl_down_sync with whole warps, uint4 and __stwb.
#pragma once

#include <pthread.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#define __global__ static
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
// Blocks run one after the other, so one copy serves them all.
#define __shared__ static

struct dim3 {
    unsigned x, y, z;
    dim3(int64_t x_, int64_t y_ = 1, int64_t z_ = 1)
        : x(static_cast<unsigned>(x_)), y(static_cast<unsigned>(y_)), z(static_cast<unsigned>(z_)) {}
};

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

// A write-back store.
inline void __stwb(uint4* to, uint4 value) {
    *to = value;
}

namespace cuda_on_host {

constexpr int kWarp = 32;

class Barrier {
 public:
    explicit Barrier(unsigned threads) {
        pthread_barrier_init(&barrier_, nullptr, threads);
    }
    ~Barrier() {
        pthread_barrier_destroy(&barrier_);
    }
    Barrier(const Barrier&) = delete;
    Barrier& operator=(const Barrier&) = delete;
    void wait() {
        pthread_barrier_wait(&barrier_);
    }

 private:
    pthread_barrier_t barrier_;
};

struct Warp {
    explicit Warp(unsigned threads) : barrier(threads) {}

    Barrier barrier;
    uint64_t exchange[kWarp];
};

struct Thread {
    Barrier* block = nullptr;
    Warp* warp = nullptr;
    unsigned lane = 0;
};

inline thread_local Thread current;

// The value of the thread `from` in this one's warp.
template <typename V>
V shuffle(V value, unsigned from) {
    static_assert(sizeof(V) <= sizeof(uint64_t), "shuffles exchange up to 8 bytes");
    Warp& warp = *current.warp;
    std::memcpy(&warp.exchange[current.lane], &value, sizeof(V));
    warp.barrier.wait();
    V received;
    std::memcpy(&received, &warp.exchange[from % kWarp], sizeof(V));
    warp.barrier.wait();
    return received;
}

}  // namespace cuda_on_host

inline thread_local dim3 threadIdx{0}, blockIdx{0}, blockDim{1}, gridDim{1};

inline void __syncthreads() {
    cuda_on_host::current.block->wait();
}

inline void __syncwarp(unsigned = 0xffffffffu) {
    cuda_on_host::current.warp->barrier.wait();
}

template <typename V>
V __shfl_xor_sync(unsigned, V value, int mask) {
    return cuda_on_host::shuffle(value, cuda_on_host::current.lane ^ static_cast<unsigned>(mask));
}

template <typename V>
V __shfl_down_sync(unsigned, V value, int delta) {
    const unsigned from = cuda_on_host::current.lane + static_cast<unsigned>(delta);
    return cuda_on_host::shuffle(value, from < cuda_on_host::kWarp ? from : cuda_on_host::current.lane);
}

namespace cuda_on_host {

// Calls `kernel` in every thread of every block; `threads` is a multiple of a warp.
template <typename F>
void run_grid(dim3 grid, unsigned threads, const F& kernel) {
    // Kernels on one stream run one after the other, and share their static memory here.
    static std::mutex stream;
    const std::lock_guard<std::mutex> lock(stream);
    Barrier block(threads);
    std::vector<Warp*> warps;
    for (unsigned first = 0; first < threads; first += kWarp) {
        warps.push_back(new Warp(kWarp));
    }
    const auto run = [&](unsigned index) {
        current = Thread{&block, warps[index / kWarp], index % kWarp};
        threadIdx = dim3(index);
        blockDim = dim3(threads);
        gridDim = grid;
        for (unsigned z = 0; z < grid.z; ++z) {
            for (unsigned y = 0; y < grid.y; ++y) {
                for (unsigned x = 0; x < grid.x; ++x) {
                    blockIdx = dim3(x, y, z);
                    kernel();
                    block.wait();
                }
            }
        }
    };
    std::vector<std::thread> pool;
    for (unsigned index = 0; index < threads; ++index) {
        pool.emplace_back(run, index);
    }
    for (auto& thread : pool) {
        thread.join();
    }
    for (Warp* warp : warps) {
        delete warp;
    }
}

}  // namespace cuda_on_host
