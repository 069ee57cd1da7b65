// Tar shards, and what their members hold.

#include "models/data/webdataset.h"
#include "tests/fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace trireme;
  static const ScratchFolder folder;
  std::string_view input = TextOf(data, size);
  WebDatasetOptions options;
  if (TakeChoice(input, 2) == 1) {
    options.latents = {.channels = 1, .height = 2, .width = 2};
  }
  options.paths = {folder.Write("shard-000000.tar", input)};
  const auto dataset = OpenWebDataset(options);
  if (!dataset.ok()) return 0;
  for (int64_t i = 0; i < (*dataset)->size(); ++i) (void)(*dataset)->Read(i);
  return 0;
}
