#include "models/data/latents.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {

static_assert(std::endian::native == std::endian::little,
              "the file's byte order is taken as it is");

namespace {

using Header = std::array<uint32_t, 3>;

Header HeaderOf(const LatentFormat& format) {
  return {static_cast<uint32_t>(format.channels),
          static_cast<uint32_t>(format.height),
          static_cast<uint32_t>(format.width)};
}

size_t ElementsOf(const LatentFormat& format) {
  return static_cast<size_t>(format.channels * format.height * format.width);
}

}  // namespace

absl::Status ParseLatents(std::string_view bytes, const LatentFormat& format,
                          Sample& sample) {
  const size_t elements = ElementsOf(format);
  const size_t expected = sizeof(Header) + 2 * elements * sizeof(float);
  Header header = {};
  std::memcpy(header.data(), bytes.data(),
              std::min(bytes.size(), sizeof(Header)));
  if (bytes.size() < sizeof(Header) || header != HeaderOf(format)) {
    return InvalidArgument("latents {}x{}x{}, expected {}x{}x{}", header[0],
                           header[1], header[2], format.channels, format.height,
                           format.width);
  }
  if (bytes.size() != expected) {
    return DataLoss("latents of {} bytes, expected {}", bytes.size(), expected);
  }
  std::vector<float> values(2 * elements);
  std::memcpy(values.data(), bytes.data() + sizeof(Header),
              values.size() * sizeof(float));
  sample.latents.mean.reserve(elements);
  sample.latents.deviation.reserve(elements);
  for (size_t i = 0; i < elements; ++i) {
    const double mean = (values[i] - format.shift) * format.scale;
    const double deviation =
        std::exp(0.5 * values[elements + i]) * format.scale;
    if (!std::isfinite(static_cast<float>(mean)) ||
        !std::isfinite(static_cast<float>(deviation))) {
      return InvalidArgument("latents with mean {} and log variance {}",
                             values[i], values[elements + i]);
    }
    sample.latents.mean.push_back(static_cast<float>(mean));
    sample.latents.deviation.push_back(static_cast<float>(deviation));
  }
  return absl::OkStatus();
}

std::string SerializeLatents(const LatentFormat& format,
                             const std::vector<double>& mean,
                             const std::vector<double>& log_variance) {
  CHECK_EQ(mean.size(), ElementsOf(format));
  CHECK_EQ(log_variance.size(), mean.size());
  const Header header = HeaderOf(format);
  std::string bytes(reinterpret_cast<const char*>(header.data()),
                    sizeof(header));
  for (const std::vector<double>* values : {&mean, &log_variance}) {
    for (const double value : *values) {
      const auto element = static_cast<float>(value);
      bytes.append(reinterpret_cast<const char*>(&element), sizeof(element));
    }
  }
  return bytes;
}

}  // namespace trireme
