// Pictures.

#include "models/image/decode.h"
#include "tests/fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  (void)trireme::DecodeImage(trireme::TextOf(data, size),
                             {.max_pixels = 1 << 20});
  return 0;
}
