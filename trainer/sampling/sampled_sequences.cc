#include "trainer/sampling/sampled_sequences.h"

#include <algorithm>

#include "runtime/core/log.h"
#include "runtime/core/philox.h"

namespace trireme {

SampledSequences::SampledSequences(const TokenGrammar& grammar,
                                   const TokenChoice& choice, uint64_t seed,
                                   int64_t first, int64_t count, int64_t length)
    : grammar_(grammar),
      choice_(choice),
      seed_(seed),
      first_(first),
      length_(length),
      sequences_(count) {}

bool SampledSequences::Ended(const std::vector<int32_t>& sequence) const {
  return !sequence.empty() && sequence.back() == grammar_.end();
}

bool SampledSequences::done() const {
  return std::all_of(sequences_.begin(), sequences_.end(),
                     [this](const auto& sequence) { return Ended(sequence); });
}

std::vector<int32_t> SampledSequences::LastTokens() const {
  std::vector<int32_t> tokens;
  for (const std::vector<int32_t>& sequence : sequences_) {
    tokens.push_back(sequence.empty() ? 0 : sequence.back());
  }
  return tokens;
}

void SampledSequences::Add(std::span<const float> logits) {
  const auto vocabulary = static_cast<size_t>(grammar_.vocabulary());
  CHECK_EQ(logits.size(), sequences_.size() * vocabulary);
  for (size_t i = 0; i < sequences_.size(); ++i) {
    std::vector<int32_t>& sequence = sequences_[i];
    if (Ended(sequence)) continue;
    const RandomStream random({.seed = seed_,
                               .sample = static_cast<uint64_t>(first_) + i,
                               .purpose = RandomPurpose::kSampling});
    const auto place = static_cast<int64_t>(sequence.size());
    sequence.push_back(ChooseToken(
        choice_, logits.subspan(i * vocabulary, vocabulary),
        grammar_.Next(sequence, length_ - place), random.Uniform(place)));
  }
}

std::vector<float> SampledSequences::Padded() const {
  std::vector<float> padded;
  for (const std::vector<int32_t>& sequence : sequences_) {
    padded.insert(padded.end(), sequence.begin(), sequence.end());
    padded.insert(padded.end(), length_ - sequence.size(), -1.0F);
  }
  return padded;
}

}  // namespace trireme
