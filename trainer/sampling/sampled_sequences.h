// Sequences of tokens as they are drawn, one token after another.

#ifndef TRIREME_TRAINER_SAMPLING_SAMPLED_SEQUENCES_H_
#define TRIREME_TRAINER_SAMPLING_SAMPLED_SEQUENCES_H_

#include <cstdint>
#include <span>
#include <vector>

#include "models/sampling/token_choice.h"
#include "models/sampling/token_grammar.h"

namespace trireme {

class SampledSequences {
 public:
  // Samples `first` to `first` + count − 1 of at most `length` tokens each.
  // What is drawn depends on (seed, sample, place) and the logits only. The
  // grammar outlives the sequences.
  SampledSequences(const TokenGrammar& grammar, const TokenChoice& choice,
                   uint64_t seed, int64_t first, int64_t count, int64_t length);

  // Whether all have ended.
  bool done() const;
  // Of each its last token; of an ended one any.
  std::vector<int32_t> LastTokens() const;
  // Draws the next token of each that has not ended, from logits [count,
  // vocabulary].
  void Add(std::span<const float> logits);
  // [count, length], −1 behind the end.
  std::vector<float> Padded() const;

 private:
  bool Ended(const std::vector<int32_t>& sequence) const;

  const TokenGrammar& grammar_;
  TokenChoice choice_;
  uint64_t seed_;
  int64_t first_;
  int64_t length_;
  std::vector<std::vector<int32_t>> sequences_;
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_SAMPLING_SAMPLED_SEQUENCES_H_
