// How the inner loops of all CPU kernels are cut: into blocks of kLanes elements.
#pragma once

#include <cstdint>
#include <cstring>

#include "../common/host_device.h"

namespace amfast {

// Elements that one inner loop works on: as many as the widest vector unit holds floats.
constexpr int64_t kLanes = 16;
// Elements that one thread should have at least, so that starting it pays off.
constexpr int64_t kElementsPerThread = 16384;

// The length of a working copy: whole blocks of kLanes, so that no loop has a remainder.
AMFAST_HOST_DEVICE int64_t padded_length(int64_t length) {
    return (length + kLanes - 1) / kLanes * kLanes;
}

// The sum of independent partial sums. Adding in this fixed order, whatever the vector unit, lets the
// compiler vectorise without -ffast-math.
template <typename Acc>
AMFAST_HOST_DEVICE Acc total(const Acc (&lanes)[kLanes]) {
    typedef Acc Quad __attribute__((vector_size(4 * sizeof(Acc))));
    Quad quads[kLanes / 4];
    std::memcpy(quads, lanes, sizeof(quads));
    const Quad sums = (quads[0] + quads[1]) + (quads[2] + quads[3]);
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

}  // namespace amfast
