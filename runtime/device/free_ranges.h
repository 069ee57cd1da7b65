// Free ranges of memory that blocks are cut from: best fit, with split and
// merge, so that blocks of varying sizes reuse what others left.

#ifndef TRIREME_RUNTIME_DEVICE_FREE_RANGES_H_
#define TRIREME_RUNTIME_DEVICE_FREE_RANGES_H_

#include <cstdint>
#include <map>
#include <set>
#include <utility>

namespace trireme {

// Not thread-safe. It never reads or writes the memory.
class FreeRanges {
 public:
  // Merges with ranges that it touches.
  void Add(char* begin, int64_t bytes);
  // The front of the smallest range that holds `bytes`; null where none does.
  char* Take(int64_t bytes);

  int64_t bytes() const { return bytes_; }
  // By address; none touches another.
  const std::map<char*, int64_t>& ranges() const { return by_address_; }
  void Clear();

 private:
  void Erase(std::map<char*, int64_t>::iterator range);

  std::map<char*, int64_t> by_address_;
  std::set<std::pair<int64_t, char*>> by_size_;
  int64_t bytes_ = 0;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_FREE_RANGES_H_
