// The checksum of a checkpoint's files: XXH64 with seed 0, in 16 hexadecimal
// digits (github.com/Cyan4973/xxHash). One thread.

#ifndef TRIREME_RUNTIME_CHECKPOINT_CHECKSUM_H_
#define TRIREME_RUNTIME_CHECKPOINT_CHECKSUM_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace trireme {

// Pieces of a file that are hashed by themselves, so that several threads can
// compare one file.
inline constexpr int64_t kChecksumPieceBytes = int64_t{64} << 20;

// A file of a checkpoint, as its manifest lists it.
struct CheckpointFile {
  int64_t bytes = 0;
  std::string xxh64;
  // Of each piece of a file of more than one, the last of which is shorter: 16
  // digits each, one after the other. Empty: one piece, or not known.
  std::string pieces = {};

  // Pieces follow from the content.
  friend bool operator==(const CheckpointFile& a, const CheckpointFile& b) {
    return a.bytes == b.bytes && a.xxh64 == b.xxh64;
  }
};

// XXH64 of one run of bytes.
class Xxh64 {
 public:
  Xxh64();
  Xxh64(Xxh64&&) noexcept;
  Xxh64& operator=(Xxh64&&) noexcept;
  ~Xxh64();

  void Update(std::string_view bytes);
  // 16 digits, of all bytes so far.
  std::string Digits() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

class Checksum {
 public:
  void Update(std::string_view bytes);
  // Of all bytes so far.
  CheckpointFile Result() const;

 private:
  Xxh64 whole_;
  Xxh64 piece_;
  std::string pieces_;  // those that are complete
  int64_t bytes_ = 0;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CHECKPOINT_CHECKSUM_H_
