// cond_norm_relu on CUDA: relu(x * scale + shift) with a scale and a shift for every image and channel, and
// its gradient in one read of x and dy. Semantics: amfast/ops/cond_norm_relu.py.
//
// Maps are channels_last, [N, H * W, C]. A thread keeps to 16 bytes of neighbouring channels, whose scale
// and shift stay in registers, and goes from pixel to pixel. How the maps are spread over threads depends on
// their height, width and channels alone, so that an image's sums do not depend on its batch-mates.

#include "../common/norm_relu.h"
#include "device.h"

namespace amfast {
namespace {

constexpr int kThreads = 128;
// Pixels whose reads a thread starts together, to have enough of them under way.
constexpr int kBatch = 4;

template <typename T>
constexpr int kLanes = 16 / sizeof(T);

// What a thread reads or writes at a time: with Full, as one access of 16 bytes.
template <typename T>
struct alignas(16) Chunk {
    T lane[kLanes<T>];
};

// A block has `rows` x `chunks` threads at work, each row on a pixel of its own, and goes through
// `pixels_per_block` pixels; `groups` blocks side by side have all channels.
struct Layout {
    int64_t images, pixels, channels;
    int chunks, rows, groups;
    int64_t pixels_per_block, blocks;
};

struct Place {
    int64_t image, block, pixel, end;
    int64_t channel;  // the thread's first
    int lanes;        // how many it has; none where it has nothing to do
};

template <typename T>
__device__ Place place_in(const Layout& by) {
    const int64_t index = blockIdx.x;
    const int row = threadIdx.x / by.chunks;
    Place place;
    place.image = index / by.groups / by.blocks;
    place.block = index / by.groups % by.blocks;
    const int64_t first = place.block * by.pixels_per_block;
    place.pixel = first + row;
    place.end = first + by.pixels_per_block < by.pixels ? first + by.pixels_per_block : by.pixels;
    place.channel = (index % by.groups * by.chunks + threadIdx.x % by.chunks) * kLanes<T>;
    const int64_t left = row < by.rows ? by.channels - place.channel : 0;
    place.lanes = left < 0 ? 0 : left < kLanes<T> ? static_cast<int>(left) : kLanes<T>;
    return place;
}

// Full: all chunks have all their channels and lie at multiples of 16 bytes.
template <bool Full, typename T>
__device__ __forceinline__ Chunk<T> load(const T* from, int lanes) {
    Chunk<T> chunk;
    if constexpr (Full) {
        const uint4 bytes = *reinterpret_cast<const uint4*>(from);
        memcpy(&chunk, &bytes, sizeof(bytes));
    } else {
        for (int lane = 0; lane < kLanes<T>; ++lane) {
            chunk.lane[lane] = lane < lanes ? from[lane] : static_cast<T>(0.0f);
        }
    }
    return chunk;
}

template <bool Full, typename T>
__device__ __forceinline__ void store(const Chunk<T>& chunk, T* to, int lanes) {
    if constexpr (Full) {
        uint4 bytes;
        memcpy(&bytes, &chunk, sizeof(bytes));
        __stwb(reinterpret_cast<uint4*>(to), bytes);  // nvcc takes an assignment apart into elements
    } else {
        for (int lane = 0; lane < lanes; ++lane) {
            to[lane] = chunk.lane[lane];
        }
    }
}

// A factor of every one of a thread's channels.
template <typename Acc, int Lanes, bool Full>
struct Factors {
    Acc of[Lanes];

    __device__ Factors(const Acc* from, int lanes) {
        constexpr int kStep = kLanes<Acc> < Lanes ? kLanes<Acc> : Lanes;
        for (int first = 0; first < Lanes; first += kStep) {
            const Chunk<Acc> chunk = load<Full>(from + first, lanes - first);
            for (int lane = 0; lane < kStep; ++lane) {
                of[first + lane] = chunk.lane[lane];
            }
        }
    }
};

// A thread's chunks of kBatch pixels, `step` elements apart, of which it has `count`.
template <typename T, bool Full>
struct Batch {
    Chunk<T> of[kBatch];

    __device__ __forceinline__ Batch(const T* from, int64_t step, int count, int lanes) {
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
            if (i < count) {
                of[i] = load<Full>(from + i * step, lanes);
            }
        }
    }
};

__device__ __forceinline__ int batch_at(const Layout& by, int64_t pixel, int64_t end) {
    const int64_t left = (end - pixel + by.rows - 1) / by.rows;
    return left < kBatch ? static_cast<int>(left) : kBatch;
}

template <typename T, typename Acc, bool Full>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(Layout by, const T* x, const Acc* scale, const Acc* shift, T* y) {
    constexpr int kCount = kLanes<T>;
    const Place place = place_in<T>(by);
    if (place.lanes == 0) {
        return;
    }
    const int64_t row = place.image * by.channels + place.channel;
    const Factors<Acc, kCount, Full> scales(scale + row, place.lanes);
    const Factors<Acc, kCount, Full> shifts(shift + row, place.lanes);
    const int64_t step = by.rows * by.channels;
    for (int64_t pixel = place.pixel; pixel < place.end; pixel += by.rows * kBatch) {
        const int64_t at = (place.image * by.pixels + pixel) * by.channels + place.channel;
        const int count = batch_at(by, pixel, place.end);
        Batch<T, Full> batch(x + at, step, count, place.lanes);
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
            if (i < count) {
                for (int lane = 0; lane < kCount; ++lane) {
                    const Acc value = static_cast<Acc>(batch.of[i].lane[lane]);
                    batch.of[i].lane[lane] =
                        static_cast<T>(relu(affine(value, scales.of[lane], shifts.of[lane])));
                }
                store<Full>(batch.of[i], y + at + i * step, place.lanes);
            }
        }
    }
}

// dscale and dshift get a row [C] for every block of pixels.
template <typename T, typename Acc, bool Full>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(Layout by, const T* dy, const T* x, const Acc* scale, const Acc* shift, T* dx,
                    Acc* dscale, Acc* dshift) {
    constexpr int kCount = kLanes<T>;
    __shared__ Acc scale_sums[kThreads * kCount];
    __shared__ Acc shift_sums[kThreads * kCount];
    const Place place = place_in<T>(by);
    Acc scale_sum[kCount] = {};
    Acc shift_sum[kCount] = {};
    if (place.lanes > 0) {
        const int64_t row = place.image * by.channels + place.channel;
        const Factors<Acc, kCount, Full> scales(scale + row, place.lanes);
        const Factors<Acc, kCount, Full> shifts(shift + row, place.lanes);
        const int64_t step = by.rows * by.channels;
        for (int64_t pixel = place.pixel; pixel < place.end; pixel += by.rows * kBatch) {
            const int64_t at = (place.image * by.pixels + pixel) * by.channels + place.channel;
            const int count = batch_at(by, pixel, place.end);
            const Batch<T, Full> values(x + at, step, count, place.lanes);
            Batch<T, Full> gradients(dy + at, step, count, place.lanes);
#pragma unroll
            for (int i = 0; i < kBatch; ++i) {
                if (i < count) {
                    for (int lane = 0; lane < kCount; ++lane) {
                        const Acc value = static_cast<Acc>(values.of[i].lane[lane]);
                        const Acc t = affine(value, scales.of[lane], shifts.of[lane]);
                        const Acc d = relu_gradient(t, static_cast<Acc>(gradients.of[i].lane[lane]));
                        gradients.of[i].lane[lane] = static_cast<T>(d * scales.of[lane]);
                        scale_sum[lane] += d * value;
                        shift_sum[lane] += d;
                    }
                    store<Full>(gradients.of[i], dx + at + i * step, place.lanes);
                }
            }
        }
    }
    for (int lane = 0; lane < kCount; ++lane) {
        scale_sums[threadIdx.x * kCount + lane] = scale_sum[lane];
        shift_sums[threadIdx.x * kCount + lane] = shift_sum[lane];
    }
    __syncthreads();
    const int width = by.chunks * kCount;
    const int64_t first = blockIdx.x % by.groups * width;
    for (int i = threadIdx.x; i < width && first + i < by.channels; i += kThreads) {
        Acc scale_total = 0;
        Acc shift_total = 0;
        for (int row = 0; row < by.rows; ++row) {
            scale_total += scale_sums[row * width + i];
            shift_total += shift_sums[row * width + i];
        }
        const int64_t to = (place.image * by.blocks + place.block) * by.channels + first + i;
        dscale[to] = scale_total;
        dshift[to] = shift_total;
    }
}

// Channels that a block adds up parts for, and threads that share one channel's parts.
constexpr int kChannels = 16;
constexpr int kSharers = kThreads / kChannels;

template <typename Acc>
__global__ void __launch_bounds__(kThreads)
    add_up_kernel(int64_t blocks, int64_t channels, const Acc* scale_parts, const Acc* shift_parts,
                  Acc* dscale, Acc* dshift) {
    __shared__ Acc scale_sums[kThreads];
    __shared__ Acc shift_sums[kThreads];
    const int64_t groups = (channels + kChannels - 1) / kChannels;
    const int64_t image = blockIdx.x / groups;
    const int64_t channel = blockIdx.x % groups * kChannels + threadIdx.x % kChannels;
    Acc scale_sum = 0;
    Acc shift_sum = 0;
    if (channel < channels) {
#pragma unroll 4
        for (int64_t block = threadIdx.x / kChannels; block < blocks; block += kSharers) {
            scale_sum += scale_parts[(image * blocks + block) * channels + channel];
            shift_sum += shift_parts[(image * blocks + block) * channels + channel];
        }
    }
    scale_sums[threadIdx.x] = scale_sum;
    shift_sums[threadIdx.x] = shift_sum;
    __syncthreads();
    if (threadIdx.x < kChannels && channel < channels) {
        for (int other = 1; other < kSharers; ++other) {
            scale_sum += scale_sums[other * kChannels + threadIdx.x];
            shift_sum += shift_sums[other * kChannels + threadIdx.x];
        }
        dscale[image * channels + channel] = scale_sum;
        dshift[image * channels + channel] = shift_sum;
    }
}

}  // namespace
}  // namespace amfast

#if !defined(__CUDACC_RTC__)

#include <initializer_list>
#include <tuple>
#include <type_traits>

#include "launch.h"

namespace amfast {
namespace {

void check_inputs(const Tensor& x, const Tensor& scale, const Tensor& shift) {
    check_float(x, "x");
    STD_TORCH_CHECK(x.dim() == 4, "x must be [N, C, H, W]");
    for (const Tensor& factor : {scale, shift}) {
        STD_TORCH_CHECK(factor.dim() == 2 && factor.size(0) == x.size(0) && factor.size(1) == x.size(1),
                        "scale and shift must be [N, C]");
        STD_TORCH_CHECK(is_on_device(factor) && factor.scalar_type() == accumulator(x.scalar_type()),
                        "scale and shift must be on the device of x, float64 for float64 maps and float32 "
                        "otherwise");
    }
}

Tensor channels_last(const Tensor& map) {
    return torch::stable::contiguous(map, MemoryFormat::ChannelsLast);
}

Tensor new_map_like(const Tensor& map) {
    return torch::stable::empty({map.size(0), map.size(1), map.size(2), map.size(3)}, map.scalar_type(),
                                std::nullopt, map.device(), std::nullopt, MemoryFormat::ChannelsLast);
}

// Calls run(Types<T, Acc>{}, Full) with std::true_type where all threads have full chunks of the maps and
// factors, at multiples of 16 bytes.
template <typename F>
void dispatch_full(const Tensor& map, std::initializer_list<const Tensor*> all, const F& run) {
    dispatch(map.scalar_type(), [&](auto types) {
        bool full = map.size(1) % kLanes<typename decltype(types)::T> == 0;
        for (const Tensor* tensor : all) {
            full = full && reinterpret_cast<uintptr_t>(tensor->const_data_ptr()) % 16 == 0;
        }
        if (full) {
            run(types, std::true_type{});
        } else {
            run(types, std::false_type{});
        }
    });
}

int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

// A block's threads go through `batches` batches of pixels each, or more where the image would have more
// than kMostBlocks blocks.
template <typename T>
Layout layout_of(const Tensor& map, int batches) {
    constexpr int64_t kMostBlocks = 256;
    Layout by;
    by.images = map.size(0);
    by.channels = map.size(1);
    by.pixels = map.size(2) * map.size(3);
    const int64_t chunks = divide_up(by.channels, kLanes<T>);
    by.groups = static_cast<int>(divide_up(chunks, kWarp));
    by.chunks = static_cast<int>(divide_up(chunks, by.groups));
    by.rows = kThreads / by.chunks;
    const int64_t pixels = by.rows * kBatch * batches;
    const int64_t enough = divide_up(by.pixels, kMostBlocks);
    by.pixels_per_block = batches > 1 && enough > pixels ? enough : pixels;
    by.blocks = divide_up(by.pixels, by.pixels_per_block);
    return by;
}

int64_t blocks_in(const Layout& by) {
    return by.images * by.blocks * by.groups;
}

Tensor cond_norm_relu(const Tensor x_in, const Tensor scale_in, const Tensor shift_in) {
    check_inputs(x_in, scale_in, shift_in);
    const Device device(x_in);
    const Tensor x = channels_last(x_in);
    const Tensor scale = torch::stable::contiguous(scale_in);
    const Tensor shift = torch::stable::contiguous(shift_in);
    Tensor y = new_map_like(x);
    if (x.numel() > 0) {
        dispatch_full(x, {&x, &scale, &shift, &y}, [&](auto types, auto full) {
            using T = typename decltype(types)::T;
            using Acc = typename decltype(types)::Acc;
            const Layout by = layout_of<T>(x, 1);
            AMFAST_LAUNCH(device, (forward_kernel<T, Acc, decltype(full)::value>), blocks_in(by), kThreads,
                          by, data<T>(x), data<Acc>(scale), data<Acc>(shift), mutable_data<T>(y));
        });
    }
    return y;
}

std::tuple<Tensor, Tensor, Tensor> cond_norm_relu_backward(const Tensor dy_in, const Tensor x_in,
                                                           const Tensor scale_in, const Tensor shift_in) {
    check_inputs(x_in, scale_in, shift_in);
    check_float(dy_in, "dy");
    STD_TORCH_CHECK(dy_in.scalar_type() == x_in.scalar_type() && dy_in.dim() == 4,
                    "dy must be of the dtype and size of x");
    for (int64_t axis = 0; axis < 4; ++axis) {
        STD_TORCH_CHECK(dy_in.size(axis) == x_in.size(axis), "dy must be of the dtype and size of x");
    }
    const Device device(x_in);
    const Tensor x = channels_last(x_in);
    const Tensor dy = channels_last(dy_in);
    const Tensor scale = torch::stable::contiguous(scale_in);
    const Tensor shift = torch::stable::contiguous(shift_in);
    Tensor dx = new_map_like(x);
    const int64_t images = x.size(0), channels = x.size(1);
    Tensor dscale = torch::stable::new_empty(scale, {images, channels});
    Tensor dshift = torch::stable::new_empty(shift, {images, channels});
    if (x.numel() == 0) {
        return {dx, torch::stable::fill_(dscale, 0.0), torch::stable::fill_(dshift, 0.0)};
    }
    dispatch_full(x, {&x, &dy, &scale, &shift, &dx}, [&](auto types, auto full) {
        using T = typename decltype(types)::T;
        using Acc = typename decltype(types)::Acc;
        const Layout by = layout_of<T>(x, 4);
        const bool in_parts = by.blocks > 1;
        Tensor scale_parts =
            in_parts ? torch::stable::new_empty(scale, {images, by.blocks, channels}) : dscale;
        Tensor shift_parts =
            in_parts ? torch::stable::new_empty(shift, {images, by.blocks, channels}) : dshift;
        AMFAST_LAUNCH(device, (backward_kernel<T, Acc, decltype(full)::value>), blocks_in(by), kThreads, by,
                      data<T>(dy), data<T>(x), data<Acc>(scale), data<Acc>(shift), mutable_data<T>(dx),
                      mutable_data<Acc>(scale_parts), mutable_data<Acc>(shift_parts));
        if (in_parts) {
            AMFAST_LAUNCH(device, add_up_kernel<Acc>, images * divide_up(channels, kChannels), kThreads,
                          by.blocks, channels, data<Acc>(scale_parts), data<Acc>(shift_parts),
                          mutable_data<Acc>(dscale), mutable_data<Acc>(dshift));
        }
    });
    return {dx, dscale, dshift};
}

}  // namespace
}  // namespace amfast

STABLE_TORCH_LIBRARY_IMPL(amfast, AMFAST_CUDA_KEY, m) {
    m.impl("cond_norm_relu", TORCH_BOX(&amfast::cond_norm_relu));
    m.impl("cond_norm_relu_backward", TORCH_BOX(&amfast::cond_norm_relu_backward));
}

#endif
