#include "trainer/evaluation/value_counts.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>

namespace trireme {
namespace {

constexpr int kLeastExponent = -30;
constexpr int kExponents = 60;
// The bin around zero; those of either sign lie beside it.
constexpr int kZero = ValueCounts::kNumBins / 2;
static_assert(kZero == 2 * kExponents);

// The value nearest to zero of the n-th bin from there, from 1.
double NearEnd(int n) {
  const double power = std::exp2(kLeastExponent + (n - 1) / 2);
  return (n - 1) % 2 == 0 ? power : 1.5 * power;
}

}  // namespace

void ValueCounts::Count(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto biased = static_cast<int>((bits >> 23) & 0xff);
  if (biased == 0xff) return;
  const int upper_half = static_cast<int>((bits >> 22) & 1);
  const int bin = 1 + 2 * (biased - 127 - kLeastExponent) + upper_half;
  const int distance = std::clamp(bin, 0, kZero);
  ++counts_[(bits >> 31) == 0 ? kZero + distance : kZero - distance];
}

void ValueCounts::Add(std::span<const float> values) {
  for (const float value : values) Count(value);
}

void ValueCounts::Add(std::span<const double> values) {
  for (const double value : values) Count(static_cast<float>(value));
}

std::map<int, int64_t> ValueCounts::NotEmpty() const {
  std::map<int, int64_t> counts;
  for (int bin = 0; bin < kNumBins; ++bin) {
    if (counts_[bin] > 0) counts[bin] = counts_[bin];
  }
  return counts;
}

std::vector<HistogramBin> ValueCounts::Bins() const {
  const std::map<int, int64_t> counts = NotEmpty();
  std::vector<HistogramBin> bins;
  if (counts.empty()) return bins;
  for (int bin = counts.begin()->first; bin <= counts.rbegin()->first; ++bin) {
    const int distance = std::abs(bin - kZero);
    const double near = distance == 0 ? -NearEnd(1) : NearEnd(distance);
    const double far = NearEnd(distance + 1);
    const auto count = static_cast<double>(counts_[bin]);
    if (bin < kZero) {
      bins.push_back({-far, -near, count});
    } else {
      bins.push_back({near, far, count});
    }
  }
  return bins;
}

}  // namespace trireme
