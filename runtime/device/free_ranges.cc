#include "runtime/device/free_ranges.h"

#include <iterator>

#include "runtime/core/log.h"

namespace trireme {

void FreeRanges::Erase(std::map<char*, int64_t>::iterator range) {
  by_size_.erase({range->second, range->first});
  bytes_ -= range->second;
  by_address_.erase(range);
}

void FreeRanges::Add(char* begin, int64_t bytes) {
  CHECK_GT(bytes, 0);
  auto next = by_address_.lower_bound(begin);
  if (next != by_address_.end()) {
    CHECK(begin + bytes <= next->first) << "freed twice";
    if (begin + bytes == next->first) {
      bytes += next->second;
      const auto merged = next++;
      Erase(merged);
    }
  }
  if (next != by_address_.begin()) {
    const auto before = std::prev(next);
    char* const end = before->first + before->second;
    CHECK(end <= begin) << "freed twice";
    if (end == begin) {
      begin = before->first;
      bytes += before->second;
      Erase(before);
    }
  }
  by_address_.emplace(begin, bytes);
  by_size_.emplace(bytes, begin);
  bytes_ += bytes;
}

char* FreeRanges::Take(int64_t bytes) {
  const auto fit = by_size_.lower_bound({bytes, nullptr});
  if (fit == by_size_.end()) return nullptr;
  const auto [found, begin] = *fit;
  Erase(by_address_.find(begin));
  if (found > bytes) Add(begin + bytes, found - bytes);
  return begin;
}

void FreeRanges::Clear() {
  by_address_.clear();
  by_size_.clear();
  bytes_ = 0;
}

}  // namespace trireme
