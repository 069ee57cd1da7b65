// Which of the known devices (ClusterPreset) a product is.

#ifndef TRIREME_SCHEDULER_CLUSTER_KNOWN_PRODUCTS_H_
#define TRIREME_SCHEDULER_CLUSTER_KNOWN_PRODUCTS_H_

#include <cstdint>
#include <optional>
#include <string_view>

namespace trireme {

// FLOP/s by the data sheet of what the driver calls `product`, as "NVIDIA H100
// 80GB HBM3", in elements of 1 (FP8), 2 or 4 bytes, of the last also in TF32.
// Nothing for other elements and products that are not known: a PCIe module has
// another peak than the SXM module.
std::optional<double> PeakFlopsOfProduct(std::string_view product,
                                         int64_t element_bytes,
                                         bool tf32 = false);

// The peak of a device that has `reached` so much: its data sheet's where that
// is known. A cool GPU's clock is above the data sheet's: it may reach more,
// and no device has a peak below what it reached.
double PeakFlopsOfDevice(double reached, std::string_view product,
                         int64_t element_bytes, bool tf32 = false);

// What clusters call a host's processor begins so.
inline constexpr std::string_view kProcessor = "cpu";
// Whether a device that a cluster calls `name` can be the GPU that its driver
// calls `product`, or, where that is empty, a processor. Names that are neither
// a known device's, a known product's ("NVIDIA H200 of HOST") nor a processor's
// can be anything.
bool CanBe(std::string_view name, std::string_view product);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_CLUSTER_KNOWN_PRODUCTS_H_
