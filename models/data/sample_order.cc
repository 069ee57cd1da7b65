#include "models/data/sample_order.h"

#include <bit>

#include "runtime/core/log.h"
#include "runtime/core/philox.h"

namespace trireme {
namespace {

constexpr int kRounds = 6;

}  // namespace

SampleOrder::SampleOrder(uint64_t seed, int64_t size)
    : seed_(seed), size_(static_cast<uint64_t>(size)) {
  CHECK(size >= 1 && size <= int64_t{1} << 62) << size;
  half_bits_ = (std::bit_width(size_ - 1) + 1) / 2;
}

uint64_t SampleOrder::Permute(uint64_t epoch, uint64_t place) const {
  if (half_bits_ == 0) return 0;  // One sample.
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t value = place;
  do {
    uint64_t left = value >> half_bits_;
    uint64_t right = value & mask;
    for (int round = 0; round < kRounds; ++round) {
      const RandomStream stream({.seed = seed_,
                                 .step = epoch,
                                 .sample = right,
                                 .layer = static_cast<uint16_t>(round),
                                 .purpose = RandomPurpose::kShuffle});
      const uint64_t next = (left ^ stream.Bits(0)) & mask;
      left = right;
      right = next;
    }
    value = left << half_bits_ | right;
  } while (value >= size_);  // Below four times the size: few repetitions.
  return value;
}

int64_t SampleOrder::Index(uint64_t position) const {
  return Replacement(position, 0);
}

int64_t SampleOrder::Replacement(uint64_t position, int64_t attempt) const {
  const uint64_t place =
      (position % size_ + static_cast<uint64_t>(attempt) % size_) % size_;
  return static_cast<int64_t>(Permute(position / size_, place));
}

}  // namespace trireme
