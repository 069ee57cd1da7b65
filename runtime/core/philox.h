// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random
// numbers: as easy as 1, 2, 3", SC'11; Random123's implementation).
//
// A value is a pure function of (seed, step, sample, layer, purpose, element).
// No process grid, resume, recompute or thread count can change it, and there
// is no state to save. `sample` is the global sample index (or, for parameter
// initialisation, the hash of the parameter's name), never a rank's.

#ifndef TRIREME_RUNTIME_CORE_PHILOX_H_
#define TRIREME_RUNTIME_CORE_PHILOX_H_

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace trireme {

// What a stream of numbers is for; streams of different purposes are
// independent. The numbers are part of the file format of a run: append only.
enum class RandomPurpose : uint16_t {
  kInitialization = 0,
  kNoise = 1,
  kTime = 2,
  kConditionDrop = 3,
  kShuffle = 4,
  kSampling = 5,
  kMetric = 6,
  kTest = 7,
};

struct RandomKey {
  uint64_t seed = 0;
  uint64_t step = 0;
  uint64_t sample = 0;
  uint16_t layer = 0;
  RandomPurpose purpose = RandomPurpose::kTest;
};

// One stream: random access to elements by index. A counter counts 2^34
// elements; each further 2^34 has a key of its own.
class RandomStream {
 public:
  explicit RandomStream(const RandomKey& key);

  // What Block is a function of beside the block, for kernels elsewhere.
  const std::array<uint32_t, 2>& key() const { return key_; }
  const std::array<uint32_t, 3>& counter() const { return counter_; }

  // Four words for elements 4·block … 4·block+3.
  std::array<uint32_t, 4> Block(uint64_t block) const;

  // Element `index` as 64 random bits, as uniform in [0, 1) and as standard
  // normal. Normal(i) agrees with FillNormal at i.
  uint64_t Bits(uint64_t index) const;
  double Uniform(uint64_t index) const;
  double Normal(uint64_t index) const;

  // Fills out[i] with element first + i, a block of Philox at a time. The
  // doubles are Normal(first + i) and Uniform(first + i).
  void FillNormal(uint64_t first, std::span<float> out) const;
  void FillNormal(uint64_t first, std::span<double> out) const;
  void FillUniform(uint64_t first, std::span<float> out) const;
  void FillUniform(uint64_t first, std::span<double> out) const;

 private:
  std::array<uint32_t, 2> key_;
  std::array<uint32_t, 3> counter_;
};

// A stable 64-bit hash of a name (FNV-1a), for keys of named things.
uint64_t StableHash(std::string_view name);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CORE_PHILOX_H_
