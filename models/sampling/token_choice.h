// Draws the next token of a sequence from a model's logits.

#ifndef TRIREME_MODELS_SAMPLING_TOKEN_CHOICE_H_
#define TRIREME_MODELS_SAMPLING_TOKEN_CHOICE_H_

#include <cstdint>
#include <span>

#include "models/sampling/token_grammar.h"

namespace trireme {

struct TokenChoice {
  // Logits are over it. 0: the likeliest token.
  double temperature = 1;
  // Of the likeliest tokens only so many; 0: all.
  int64_t top_k = 0;
  // Of those the likeliest ones whose probabilities come to this (Holtzman et
  // al., "The curious case of neural text degeneration"); 1: all.
  double top_p = 1;
};

// One of the tokens within `allowed`, which is not empty, where `uniform` is of
// [0, 1). Of equal logits the first one is the likelier. Logits that are not
// numbers are the least likely.
int32_t ChooseToken(const TokenChoice& choice, std::span<const float> logits,
                    std::span<const TokenInterval> allowed, double uniform);

}  // namespace trireme

#endif  // TRIREME_MODELS_SAMPLING_TOKEN_CHOICE_H_
