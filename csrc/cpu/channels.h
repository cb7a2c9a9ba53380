// What the kernels over channels_last maps [N, H, W, C] share: how channels are spread over vector
// lanes and tasks over threads, and the inner loops of relu(x * scale + shift).
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cstdint>

#include "../common/dtypes.h"
#include "../common/norm_relu.h"
#include "clones.h"
#include "lanes.h"

namespace amfast {

using torch::headeronly::MemoryFormat;
using torch::stable::Tensor;

// Calls FUNCTION<T, Acc, Full>(...) for the type of the maps; Full tells whether every chunk has kLanes
// channels, which makes its inner loops of constant length.
#define AMFAST_DISPATCH(DTYPE, CHANNELS, FUNCTION, ...)             \
    if ((CHANNELS) % kLanes == 0) {                                 \
        AMFAST_DISPATCH_DTYPE(DTYPE, FUNCTION, true, __VA_ARGS__);  \
    } else {                                                        \
        AMFAST_DISPATCH_DTYPE(DTYPE, FUNCTION, false, __VA_ARGS__); \
    }
#define AMFAST_DISPATCH_DTYPE(DTYPE, FUNCTION, FULL, ...)      \
    switch (DTYPE) {                                           \
        case ScalarType::Double:                               \
            FUNCTION<double, double, FULL>(__VA_ARGS__);       \
            break;                                             \
        case ScalarType::BFloat16:                             \
            FUNCTION<c10::BFloat16, float, FULL>(__VA_ARGS__); \
            break;                                             \
        case ScalarType::Half:                                 \
            FUNCTION<c10::Half, float, FULL>(__VA_ARGS__);     \
            break;                                             \
        default:                                               \
            FUNCTION<float, float, FULL>(__VA_ARGS__);         \
    }

// A task is one image and up to kGroup of its channels; tasks are numbered image by image. Row by row it
// takes kLanes channels after kLanes, so that memory is read nearly in order and a row stays in the cache.
constexpr int64_t kGroup = 8 * kLanes;

struct Task {
    int64_t image;
    int64_t begin, end;  // channels
};

AMFAST_HOST_DEVICE int64_t groups_of(int64_t channels) {
    return (channels + kGroup - 1) / kGroup;
}

AMFAST_HOST_DEVICE Task task_at(int64_t index, int64_t channels) {
    const int64_t groups = groups_of(channels);
    const int64_t begin = index % groups * kGroup;
    return Task{index / groups, begin, channels - begin < kGroup ? channels : begin + kGroup};
}

// Up to kLanes channels of one image.
struct Chunk {
    int64_t image;
    int64_t channel;  // the first
    int64_t lanes;
};

AMFAST_HOST_DEVICE Chunk chunk_at(const Task& task, int64_t channel) {
    const int64_t left = task.end - channel;
    return Chunk{task.image, channel, left < kLanes ? left : kLanes};
}

template <typename F>
void parallel_tasks(int64_t images, int64_t channels, int64_t pixels, const F& run) {
    const int64_t per_task = std::max<int64_t>(1, std::min(channels, kGroup) * pixels);
    const int64_t grain = std::max<int64_t>(1, kElementsPerThread / per_task);
    torch::stable::parallel_for(0, images * groups_of(channels), grain, run);
}

// scale and shift of a chunk's channels.
template <typename Acc>
struct Affine {
    Acc scale[kLanes];
    Acc shift[kLanes];
};

template <typename Acc, bool Full>
AMFAST_HOST_DEVICE Affine<Acc> load_affine(const void* scale, const void* shift, int64_t channels,
                                           const Chunk& chunk) {
    Affine<Acc> loaded = {};
    const int64_t offset = chunk.image * channels + chunk.channel;
    const int64_t lanes = Full ? kLanes : chunk.lanes;
    for (int64_t lane = 0; lane < lanes; ++lane) {
        loaded.scale[lane] = static_cast<const Acc*>(scale)[offset + lane];
        loaded.shift[lane] = static_cast<const Acc*>(shift)[offset + lane];
    }
    return loaded;
}

// The gradients of scale and shift: sums over a row of pixels in Acc, over rows in double.
template <typename Acc>
struct AffineGradient {
    double scale[kLanes] = {};
    double shift[kLanes] = {};

    AMFAST_HOST_DEVICE void add(const Affine<Acc>& row) {
        for (int64_t lane = 0; lane < kLanes; ++lane) {
            scale[lane] += row.scale[lane];
            shift[lane] += row.shift[lane];
        }
    }

    AMFAST_HOST_DEVICE void store(void* dscale, void* dshift, int64_t channels, const Chunk& chunk) const {
        const int64_t offset = chunk.image * channels + chunk.channel;
        for (int64_t lane = 0; lane < chunk.lanes; ++lane) {
            static_cast<Acc*>(dscale)[offset + lane] = static_cast<Acc>(scale[lane]);
            static_cast<Acc*>(dshift)[offset + lane] = static_cast<Acc>(shift[lane]);
        }
    }
};

// The gradients of all chunks of a task.
template <typename Acc>
struct TaskGradient {
    AffineGradient<Acc> chunks[kGroup / kLanes];

    AMFAST_HOST_DEVICE AffineGradient<Acc>& of(const Task& task, int64_t channel) {
        return chunks[(channel - task.begin) / kLanes];
    }

    AMFAST_HOST_DEVICE void store(void* dscale, void* dshift, int64_t channels, const Task& task) {
        for (int64_t channel = task.begin; channel < task.end; channel += kLanes) {
            of(task, channel).store(dscale, dshift, channels, chunk_at(task, channel));
        }
    }
};

// y = relu(x * scale + shift) over `count` pixels, x_step and y_step elements apart. What is the same for
// all pixels is taken by value, so that it can stay in registers: a reference might point into y.
template <typename T, typename Acc, bool Full>
AMFAST_HOST_DEVICE void norm_relu_run(const T* x, int64_t x_step, T* y, int64_t y_step, int64_t count,
                                      const Affine<Acc> by, int64_t chunk_lanes) {
    const int64_t lanes = Full ? kLanes : chunk_lanes;
    for (int64_t i = 0; i < count; ++i) {
        for (int64_t lane = 0; lane < lanes; ++lane) {
            const Acc value = static_cast<Acc>(x[i * x_step + lane]);
            y[i * y_step + lane] = static_cast<T>(relu(affine(value, by.scale[lane], by.shift[lane])));
        }
    }
}

// dx from dy, and the row's share of the gradients of scale and shift. dx is laid out like x.
template <typename T, typename Acc, bool Full>
AMFAST_HOST_DEVICE void norm_relu_backward_run(const T* x, T* dx, int64_t x_step, const T* dy,
                                               int64_t dy_step, int64_t count, const Affine<Acc> by,
                                               AffineGradient<Acc>& gradient, int64_t chunk_lanes) {
    const int64_t lanes = Full ? kLanes : chunk_lanes;
    Affine<Acc> sums = {};
    for (int64_t i = 0; i < count; ++i) {
        for (int64_t lane = 0; lane < lanes; ++lane) {
            const Acc value = static_cast<Acc>(x[i * x_step + lane]);
            const Acc t = affine(value, by.scale[lane], by.shift[lane]);
            const Acc d = relu_gradient(t, static_cast<Acc>(dy[i * dy_step + lane]));
            dx[i * x_step + lane] = static_cast<T>(d * by.scale[lane]);
            sums.scale[lane] += d * value;
            sums.shift[lane] += d;
        }
    }
    gradient.add(sums);
}

inline void check_map(const Tensor& map, const char* name) {
    STD_TORCH_CHECK(is_floating(map.scalar_type()), name, " must be float32, float64, bfloat16 or float16");
    STD_TORCH_CHECK(map.dim() == 4 && map.is_cpu(), name, " must be [N, C, H, W] on the CPU");
}

inline void check_even(const Tensor& map, const char* name) {
    check_map(map, name);
    STD_TORCH_CHECK(map.size(2) % 2 == 0 && map.size(3) % 2 == 0, name, " must have even height and width");
}

inline void check_same_type(const Tensor& map, const Tensor& like, const char* name) {
    check_map(map, name);
    STD_TORCH_CHECK(map.scalar_type() == like.scalar_type(), name, " must be of the maps' dtype");
}

inline void check_size(const Tensor& map, int64_t n, int64_t c, int64_t h, int64_t w, const char* name) {
    STD_TORCH_CHECK(map.size(0) == n && map.size(1) == c && map.size(2) == h && map.size(3) == w, name,
                    " does not have the size that the other maps ask for");
}

inline void check_affine(const Tensor& tensor, const Tensor& map, int64_t channels, const char* name) {
    STD_TORCH_CHECK(tensor.dim() == 2 && tensor.size(0) == map.size(0) && tensor.size(1) == channels, name,
                    " must be [N, C]");
    STD_TORCH_CHECK(tensor.is_cpu() && tensor.scalar_type() == accumulator(map.scalar_type()), name,
                    " must be on the CPU, float64 for float64 maps and float32 otherwise");
}

inline Tensor channels_last(const Tensor& map) {
    return torch::stable::contiguous(map, MemoryFormat::ChannelsLast);
}

inline Tensor new_map(const Tensor& like, int64_t n, int64_t c, int64_t h, int64_t w) {
    return torch::stable::empty({n, c, h, w}, like.scalar_type(), std::nullopt, like.device(), std::nullopt,
                                MemoryFormat::ChannelsLast);
}

}  // namespace amfast
