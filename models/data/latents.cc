#include "models/data/latents.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "fmt/format.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/core/voxel_order.h"

namespace trireme {

static_assert(std::endian::native == std::endian::little,
              "the file's byte order is taken as it is");

namespace {

using Header = std::array<uint32_t, 3>;

static_assert(sizeof(Header) == kLatentHeaderBytes);

// As many as the bytes have.
Header HeaderOf(std::string_view bytes) {
  Header header = {};
  std::memcpy(header.data(), bytes.data(),
              std::min(bytes.size(), sizeof(Header)));
  return header;
}

PictureSize SizeOf(const Header& header) { return {header[1], header[2]}; }

bool Allows(const LatentFormat& format, const PictureSize& size) {
  if (format.sizes.empty()) {
    return size == PictureSize{format.height, format.width};
  }
  return std::find(format.sizes.begin(), format.sizes.end(), size) !=
         format.sizes.end();
}

bool HasChannels(const LatentFormat& format, uint32_t channels) {
  if (format.lattice == 0) {
    return channels == static_cast<uint64_t>(format.channels);
  }
  return channels >= 1 && channels <= static_cast<uint64_t>(format.channels);
}

// Of [n, 3].
absl::Status CheckVoxels(const std::vector<int32_t>& voxels, int64_t lattice) {
  int64_t before = -1;
  for (size_t i = 0; i + 3 <= voxels.size(); i += 3) {
    const auto [low, high] =
        std::minmax_element(voxels.begin() + i, voxels.begin() + i + 3);
    const int64_t rank =
        *low < 0 || *high >= lattice
            ? -1
            : VoxelRank(voxels[i], voxels[i + 1], voxels[i + 2], lattice);
    if (rank <= before) {
      return InvalidArgument(
          "latents at {}, {}, {}, expected places of a grid of {}, in their "
          "order",
          voxels[i], voxels[i + 1], voxels[i + 2], lattice);
    }
    before = rank;
  }
  return absl::OkStatus();
}

std::string ExpectedText(const LatentFormat& format) {
  std::string text =
      fmt::format("{}{}x{}x{}", format.lattice > 0 ? "at most " : "",
                  format.channels, format.height, format.width);
  if (format.sizes.size() > 1) {
    text += fmt::format(" or one of {} other sizes", format.sizes.size() - 1);
  }
  return text;
}

}  // namespace

absl::StatusOr<PictureSize> ReadLatentSize(std::string_view bytes) {
  if (bytes.size() < sizeof(Header)) {
    return DataLoss("latents of {} bytes, expected a header of {}",
                    bytes.size(), sizeof(Header));
  }
  return SizeOf(HeaderOf(bytes));
}

absl::Status ParseLatents(std::string_view bytes, const LatentFormat& format,
                          Sample& sample) {
  const Header header = HeaderOf(bytes);
  const PictureSize size = SizeOf(header);
  if (bytes.size() < sizeof(Header) || !HasChannels(format, header[0]) ||
      !Allows(format, size)) {
    return InvalidArgument("latents {}x{}x{}, expected {}", header[0],
                           header[1], header[2], ExpectedText(format));
  }
  const auto elements = static_cast<size_t>(header[0] * size.pixels());
  const size_t places = format.lattice > 0 ? 3 * size_t{header[0]} : 0;
  const size_t expected =
      sizeof(Header) + 2 * elements * sizeof(float) + places * sizeof(int32_t);
  if (bytes.size() != expected) {
    return DataLoss("latents of {} bytes, expected {}", bytes.size(), expected);
  }
  std::vector<float> values(2 * elements);
  std::memcpy(values.data(), bytes.data() + sizeof(Header),
              values.size() * sizeof(float));
  sample.voxels.resize(places);
  if (places > 0) {
    std::memcpy(sample.voxels.data(),
                bytes.data() + bytes.size() - places * sizeof(int32_t),
                places * sizeof(int32_t));
  }
  RETURN_IF_ERROR(CheckVoxels(sample.voxels, format.lattice));
  sample.latents.size = size;
  sample.latents.mean.reserve(elements);
  sample.latents.deviation.reserve(elements);
  const auto scaled = static_cast<size_t>(
      (format.channels - format.extra_channels) * size.pixels());
  for (size_t i = 0; i < elements; ++i) {
    const double scale = i < scaled ? format.scale : 1;
    const double shift = i < scaled ? format.shift : 0;
    const double mean = (values[i] - shift) * scale;
    const double deviation = std::exp(0.5 * values[elements + i]) * scale;
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
                             const PictureSize& size,
                             const std::vector<double>& mean,
                             const std::vector<double>& log_variance,
                             const std::vector<int32_t>& voxels) {
  const int64_t channels = format.lattice > 0
                               ? static_cast<int64_t>(voxels.size()) / 3
                               : format.channels;
  CHECK_EQ(static_cast<int64_t>(mean.size()), channels * size.pixels());
  CHECK_EQ(log_variance.size(), mean.size());
  const Header header = {static_cast<uint32_t>(channels),
                         static_cast<uint32_t>(size.height),
                         static_cast<uint32_t>(size.width)};
  std::string bytes(reinterpret_cast<const char*>(header.data()),
                    sizeof(header));
  for (const std::vector<double>* values : {&mean, &log_variance}) {
    for (const double value : *values) {
      const auto element = static_cast<float>(value);
      bytes.append(reinterpret_cast<const char*>(&element), sizeof(element));
    }
  }
  bytes.append(reinterpret_cast<const char*>(voxels.data()),
               voxels.size() * sizeof(int32_t));
  return bytes;
}

}  // namespace trireme
