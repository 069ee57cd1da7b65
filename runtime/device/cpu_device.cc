#include "runtime/device/cpu_device.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

int64_t RoundUp(int64_t bytes) {
  return (bytes + Device::kAlignment - 1) / Device::kAlignment *
         Device::kAlignment;
}

// What a user can do about each category, nearest first.
std::string_view NearestFix(MemoryCategory category) {
  switch (category) {
    case MemoryCategory::kActivations:
      return "use a smaller microbatch, recompute, or a larger tp";
    case MemoryCategory::kParameters:
    case MemoryCategory::kGradients:
    case MemoryCategory::kOptimizer:
      return "split the model further (tp or pp)";
    case MemoryCategory::kCommunication:
      return "use smaller gradient buckets";
    case MemoryCategory::kWorkspace:
      return "use a smaller microbatch";
  }
  return "";
}

}  // namespace

CpuDevice::CpuDevice(int64_t limit_bytes, Mode mode) : mode_(mode) {
  CHECK_GT(limit_bytes, 0);
  statistics_.limit_bytes = limit_bytes;
}

CpuDevice::~CpuDevice() {
  std::lock_guard lock(mutex_);
  CHECK(live_.empty()) << live_.size() << " tensors outlive their device";
  ReleaseCache();
}

void CpuDevice::Count(int64_t bytes, MemoryCategory category) {
  const int at = static_cast<int>(category);
  MemoryStatistics& s = statistics_;
  s.current_bytes += bytes;
  s.current_by_category[at] += bytes;
  s.peak_by_category[at] =
      std::max(s.peak_by_category[at], s.current_by_category[at]);
  if (s.current_bytes > s.peak_bytes) {
    s.peak_bytes = s.current_bytes;
    s.at_peak_by_category = s.current_by_category;
  }
}

void CpuDevice::ReleaseCache() {
  for (auto& [bytes, blocks] : cache_) {
    for (void* block : blocks) {
      if (bytes < HostSlabs::kMinBlockBytes) {
        std::free(block);
      } else {
        HostSlabs::Discard(block, bytes);
        discarded_[bytes].push_back(block);
      }
    }
  }
  cache_.clear();
  cached_bytes_ = 0;
}

absl::Status CpuDevice::OutOfMemory(const Allocation& wanted) const {
  // Holders are summed by label: "attention 3 x" says more than three lines.
  std::map<std::pair<MemoryCategory, std::string>, std::pair<int64_t, int>>
      holders;
  for (const auto& [id, allocation] : live_) {
    auto& [bytes, count] = holders[{allocation.category, allocation.label}];
    bytes += allocation.bytes;
    ++count;
  }
  std::vector<std::pair<int64_t, std::string>> lines;
  for (const auto& [key, value] : holders) {
    lines.emplace_back(
        value.first,
        fmt::format("\n  {:>10}  {} ({}, {} {})", BytesText(value.first),
                    key.second, MemoryCategoryName(key.first), value.second,
                    value.second == 1 ? "tensor" : "tensors"));
  }
  std::sort(lines.begin(), lines.end(), std::greater<>());
  std::string largest;
  for (size_t i = 0; i < std::min<size_t>(lines.size(), 5); ++i) {
    largest += lines[i].second;
  }
  const auto& by_category = statistics_.current_by_category;
  const auto most = static_cast<MemoryCategory>(
      std::max_element(by_category.begin(), by_category.end()) -
      by_category.begin());
  return ResourceExhausted(
      "out of memory on {}: {} more for '{}' ({}) would pass the limit of {}; "
      "in use: {}; largest holders:{}\nto fit: {}",
      name(), BytesText(wanted.bytes), wanted.label,
      MemoryCategoryName(wanted.category), BytesText(statistics_.limit_bytes),
      MemoryText(by_category), largest, NearestFix(most));
}

void* CpuDevice::Take(int64_t bytes) {
  const auto reuse = [bytes](FreeBlocks& blocks) -> void* {
    auto found = blocks.find(bytes);
    if (found == blocks.end() || found->second.empty()) return nullptr;
    void* block = found->second.back();
    found->second.pop_back();
    return block;
  };
  if (void* block = reuse(cache_); block != nullptr) {
    cached_bytes_ -= bytes;
    return block;
  }
  if (statistics_.current_bytes + cached_bytes_ > statistics_.limit_bytes) {
    ReleaseCache();
  }
  if (void* block = reuse(discarded_); block != nullptr) return block;
  const auto allocate = [&] {
    return bytes < HostSlabs::kMinBlockBytes
               ? std::aligned_alloc(kAlignment, bytes)
               : slabs_.Allocate(bytes);
  };
  void* block = allocate();
  if (block == nullptr) {
    ReleaseCache();
    block = allocate();
  }
  return block;
}

Device::Block CpuDevice::Allocate(int64_t bytes, MemoryCategory category,
                                  std::string_view label) {
  CHECK_GE(bytes, 0);
  const int64_t rounded = RoundUp(std::max<int64_t>(bytes, 1));
  Allocation allocation{rounded, category, std::string(label)};
  std::lock_guard lock(mutex_);
  Block block{nullptr, rounded, next_id_++};
  if (status_.ok() &&
      statistics_.current_bytes + rounded > statistics_.limit_bytes) {
    status_ = OutOfMemory(allocation);
  }
  Count(rounded, category);
  live_.emplace(block.id, std::move(allocation));
  if (mode_ == Mode::kDry || !status_.ok()) return block;

  block.data = Take(rounded);
  if (block.data == nullptr) {
    status_ = ResourceExhausted(
        "the system refused {} for '{}' though the limit of {} is not reached",
        BytesText(rounded), label, BytesText(statistics_.limit_bytes));
  }
  return block;
}

void CpuDevice::Free(const Block& block) {
  std::lock_guard lock(mutex_);
  auto found = live_.find(block.id);
  CHECK(found != live_.end()) << "freed twice";
  Count(-block.bytes, found->second.category);
  live_.erase(found);
  if (block.data != nullptr) {
    cache_[block.bytes].push_back(block.data);
    cached_bytes_ += block.bytes;
  }
}

bool CpuDevice::dry() const {
  if (mode_ == Mode::kDry) return true;
  std::lock_guard lock(mutex_);
  return !status_.ok();
}

absl::Status CpuDevice::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

MemoryStatistics CpuDevice::Statistics() const {
  std::lock_guard lock(mutex_);
  return statistics_;
}

void CpuDevice::ResetPeak() {
  std::lock_guard lock(mutex_);
  statistics_.peak_bytes = statistics_.current_bytes;
  statistics_.at_peak_by_category = statistics_.current_by_category;
  statistics_.peak_by_category = statistics_.current_by_category;
}

std::string CpuDevice::name() const {
  return mode_ == Mode::kDry ? "dry cpu" : "cpu";
}

}  // namespace trireme
