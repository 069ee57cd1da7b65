// The checksum of a checkpoint's files: XXH64 with seed 0, in 16 hexadecimal
// digits (github.com/Cyan4973/xxHash). One thread.

#ifndef TRIREME_RUNTIME_CHECKPOINT_CHECKSUM_H_
#define TRIREME_RUNTIME_CHECKPOINT_CHECKSUM_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace trireme {

// A file of a checkpoint, as its manifest lists it.
struct CheckpointFile {
  int64_t bytes = 0;
  std::string xxh64;

  bool operator==(const CheckpointFile&) const = default;
};

class Checksum {
 public:
  Checksum();
  Checksum(Checksum&&) noexcept;
  ~Checksum();

  void Update(std::string_view bytes);
  // Of all bytes so far.
  CheckpointFile Result() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
  int64_t bytes_ = 0;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CHECKPOINT_CHECKSUM_H_
