// The pages of the host's memory that hold tensors: what is pinned so that a
// GPU copies them by itself.

#ifndef TRIREME_RUNTIME_DEVICE_HOST_PAGES_H_
#define TRIREME_RUNTIME_DEVICE_HOST_PAGES_H_

#include <cstddef>
#include <span>
#include <vector>

#include "runtime/device/tensor.h"

namespace trireme {

// Whole pages, ascending; those that touch are one range, since a page is
// pinned once. Tensors without elements have none. Their device is of the host,
// and not dry.
std::vector<std::span<std::byte>> PagesOf(const std::vector<Tensor>& tensors);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_HOST_PAGES_H_
