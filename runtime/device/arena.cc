#include "runtime/device/arena.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

int64_t RoundUp(int64_t bytes) {
  return (bytes + Arena::kAlignment - 1) / Arena::kAlignment *
         Arena::kAlignment;
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

Arena::Arena(std::string name, int64_t limit_bytes,
             std::unique_ptr<MemorySource> source)
    : name_(std::move(name)),
      source_(std::move(source)),
      dry_(source_ == nullptr) {
  CHECK_GT(limit_bytes, 0);
  statistics_.limit_bytes = limit_bytes;
}

Arena::~Arena() {
  std::lock_guard lock(mutex_);
  CHECK(live_.empty()) << live_.size() << " tensors outlive their device";
}

void Arena::Count(int64_t bytes, MemoryCategory category) {
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

absl::Status Arena::OutOfMemory(const Allocation& wanted) const {
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
      name_, BytesText(wanted.bytes), wanted.label,
      MemoryCategoryName(wanted.category), BytesText(statistics_.limit_bytes),
      MemoryText(by_category), largest, NearestFix(most));
}

void* Arena::Take(int64_t bytes) {
  if (void* block = source_->Reuse(bytes); block != nullptr) return block;
  if (statistics_.current_bytes + source_->kept_bytes() >
      statistics_.limit_bytes) {
    source_->GiveBack();
  }
  void* block = source_->Allocate(bytes);
  if (block == nullptr) {
    source_->GiveBack();
    block = source_->Allocate(bytes);
  }
  return block;
}

void Arena::Exhaust(absl::Status status) {
  status_ = std::move(status);
  dry_.store(true, std::memory_order_relaxed);
}

Arena::Block Arena::Allocate(int64_t bytes, MemoryCategory category,
                             std::string_view label) {
  CHECK_GE(bytes, 0);
  const int64_t rounded = RoundUp(std::max<int64_t>(bytes, 1));
  Allocation allocation{rounded, category, std::string(label)};
  std::lock_guard lock(mutex_);
  Block block{nullptr, rounded, next_id_++};
  if (status_.ok() &&
      statistics_.current_bytes + rounded > statistics_.limit_bytes) {
    Exhaust(OutOfMemory(allocation));
  }
  Count(rounded, category);
  live_.emplace(block.id, std::move(allocation));
  if (dry()) return block;
  block.data = Take(rounded);
  if (block.data == nullptr) {
    Exhaust(ResourceExhausted(
        "the system refused {} for '{}' though the limit of {} is not reached",
        BytesText(rounded), label, BytesText(statistics_.limit_bytes)));
  }
  return block;
}

void Arena::Free(const Block& block) {
  std::lock_guard lock(mutex_);
  auto found = live_.find(block.id);
  CHECK(found != live_.end()) << "freed twice";
  Count(-block.bytes, found->second.category);
  live_.erase(found);
  if (block.data != nullptr) source_->Free(block.data, block.bytes);
}

absl::Status Arena::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

MemoryStatistics Arena::Statistics() const {
  std::lock_guard lock(mutex_);
  return statistics_;
}

void Arena::ResetPeak() {
  std::lock_guard lock(mutex_);
  statistics_.peak_bytes = statistics_.current_bytes;
  statistics_.at_peak_by_category = statistics_.current_by_category;
  statistics_.peak_by_category = statistics_.current_by_category;
}

std::string_view MemoryCategoryName(MemoryCategory category) {
  constexpr std::array<std::string_view, kNumMemoryCategories> kNames = {
      "parameters",  "gradients",     "optimizer",
      "activations", "communication", "workspace"};
  return kNames[static_cast<int>(category)];
}

std::string BytesText(int64_t bytes) {
  constexpr std::array<std::string_view, 5> kUnits = {"B", "KiB", "MiB", "GiB",
                                                      "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes)
                   : fmt::format("{:.{}f} {}", value, value < 10 ? 2 : 1,
                                 kUnits[unit]);
}

std::string MemoryText(const MemoryByCategory& bytes) {
  std::array<int, kNumMemoryCategories> order;
  for (int i = 0; i < kNumMemoryCategories; ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return bytes[a] > bytes[b]; });
  std::string text;
  for (int i : order) {
    if (bytes[i] == 0) continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ",
                        MemoryCategoryName(static_cast<MemoryCategory>(i)),
                        BytesText(bytes[i]));
  }
  return text.empty() ? "nothing" : text;
}

}  // namespace trireme
