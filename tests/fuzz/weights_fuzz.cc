// The JSON of folders of weights; the first byte says which file.

#include "models/resolve.h"
#include "models/weights/folder_tensors.h"
#include "models/weights/weight_folder.h"
#include "tests/fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace trireme;
  static const ScratchFolder folder;
  std::string_view input = TextOf(data, size);
  switch (TakeChoice(input, 3)) {
    case 0:
      folder.Write("model/config.json", input);
      (void)ModelOfFolder(folder.path() + "/model");
      break;
    case 1:
      folder.Write("shards/diffusion_pytorch_model.safetensors.index.json",
                   input);
      (void)FolderTensors::Open(folder.path() + "/shards");
      break;
    default:
      folder.Write("pipeline/model_index.json", input);
      (void)ReadFolderConfig(folder.path() + "/pipeline");
  }
  return 0;
}
