// The order in which samples are consumed: a pure function of (seed,
// position). There is no state, so no process grid, batch size or resume can
// lose or repeat a sample.
//
// Position p lies in epoch p / size. Each epoch visits every sample once, in
// the order of a keyed permutation: a Feistel network over the smallest even
// number of bits that holds `size`, followed until it lands below `size`
// (cycle walking; Black and Rogaway, "Ciphers with arbitrary finite domains",
// CT-RSA 2002). Its rounds are Philox blocks keyed by (seed, epoch).

#ifndef TRIREME_MODELS_DATA_SAMPLE_ORDER_H_
#define TRIREME_MODELS_DATA_SAMPLE_ORDER_H_

#include <cstdint>

namespace trireme {

class SampleOrder {
 public:
  // `size` is 1 to 2^62.
  SampleOrder(uint64_t seed, int64_t size);

  // The index in [0, size) of the sample consumed at `position` >= 0.
  int64_t Index(uint64_t position) const;

  // The sample that takes the place of one that cannot be read: the next in
  // the epoch's order, after its last again its first. `attempt` 0 is
  // Index(position); attempts 0 … size−1 visit every sample.
  int64_t Replacement(uint64_t position, int64_t attempt) const;

 private:
  uint64_t Permute(uint64_t epoch, uint64_t place) const;

  uint64_t seed_;
  uint64_t size_;
  int half_bits_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_DATA_SAMPLE_ORDER_H_
