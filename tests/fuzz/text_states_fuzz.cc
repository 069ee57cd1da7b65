// Precomputed states of text, and latents.

#include "models/data/latents.h"
#include "models/data/text_tokens.h"
#include "tests/fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace trireme;
  const std::string_view input = TextOf(data, size);
  Sample sample;
  (void)ParseTextTokens(input, sample);
  (void)ParseTextLayers(input, sample);
  (void)ParsePooledText(input, sample);
  (void)ParseLatents(input, {.channels = 1, .height = 2, .width = 2}, sample);
  return 0;
}
