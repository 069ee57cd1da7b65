#include "trainer/batches.h"

#include <utility>

#include "models/data/held_out.h"
#include "models/data/idx.h"
#include "models/data/image_folder.h"
#include "models/data/webdataset.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

absl::StatusOr<std::unique_ptr<Dataset>> OpenWhole(const Data& data) {
  switch (data.source_case()) {
    case Data::kIdx: {
      const Idx& idx = data.idx();
      return OpenIdx(idx.folder(), idx.split(),
                     {idx.class_names().begin(), idx.class_names().end()});
    }
    case Data::kImageFolder:
      return OpenImageFolder(data.image_folder().path());
    case Data::kWebdataset: {
      const WebDataset& source = data.webdataset();
      WebDatasetOptions options;
      options.paths.assign(source.paths().begin(), source.paths().end());
      options.num_classes = static_cast<int32_t>(source.classes());
      return OpenWebDataset(options);
    }
    case Data::SOURCE_NOT_SET:
      break;
  }
  return InvalidArgument(
      "data: found no source, expected one of idx, image_folder, webdataset");
}

absl::StatusOr<std::unique_ptr<Dataset>> OpenShare(const Data& data,
                                                   Share share) {
  ASSIGN_OR_RETURN(std::unique_ptr<Dataset> whole, OpenWhole(data));
  if (data.held_out() >= whole->size()) {
    return InvalidArgument(
        "data.held_out: found {}, expected less than the data set's {} samples",
        data.held_out(), whole->size());
  }
  return TakeShare(std::move(whole), data.held_out(), share);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Dataset>> OpenDataset(const Data& data) {
  return data.held_out() > 0 ? OpenShare(data, Share::kTraining)
                             : OpenWhole(data);
}

absl::StatusOr<std::unique_ptr<Dataset>> OpenHeldOut(const Data& data) {
  if (data.held_out() > 0) return OpenShare(data, Share::kHeldOut);
  if (data.idx().split() != "train") return nullptr;
  Data test = data;
  test.mutable_idx()->set_split("test");
  absl::StatusOr<std::unique_ptr<Dataset>> dataset = OpenWhole(test);
  if (absl::IsNotFound(dataset.status())) return nullptr;
  return dataset;
}

BatchReader::BatchReader(const Dataset& dataset, const Job& job,
                         const TrainingSetup& setup, int64_t first,
                         int64_t count, bool reads_pixels, bool reads_text)
    : setup_(setup), first_(first), count_(count), reads_pixels_(reads_pixels) {
  if (!reads_pixels && !reads_text) return;
  LoaderOptions options;
  options.seed = setup.seed;
  options.global_batch = setup.global_batch;
  options.first = first;
  options.count = count;
  options.resolution = static_cast<int>(setup.model.image.height);
  options.channels = static_cast<int>(setup.model.image.channels);
  options.text_tokens = static_cast<int>(setup.model.text_tokens);
  options.text_width = static_cast<int>(setup.model.text_width);
  options.threads = static_cast<int>(job.data().decode_threads());
  loader_ = std::make_unique<DataLoader>(dataset, options);
}

absl::StatusOr<ImageBatch> BatchReader::Read(Device& device, int64_t step) {
  ImageBatch batch;
  batch.step = step;
  if (loader_ == nullptr) {
    for (int64_t i = 0; i < count_; ++i) {
      batch.sample_indices.push_back((step - 1) * setup_.global_batch + first_ +
                                     i);
    }
    return batch;
  }
  if (step != next_step_) loader_->SeekStep(step);
  next_step_ = step + 1;
  ASSIGN_OR_RETURN(const Batch read, loader_->Next());
  batch.sample_indices = read.sample_indices;
  const DitConfig& model = setup_.model;
  if (reads_pixels_) {
    batch.pixels = Tensor::FromValues<float>(
        device,
        {count_, model.image.channels, model.image.height, model.image.width},
        read.pixels, MemoryCategory::kActivations, "batch");
    if (model.classes > 0) {
      batch.labels = Tensor::FromValues<int32_t>(device, {count_}, read.labels);
    }
  }
  if (model.text_tokens > 0) {
    batch.text_counts =
        Tensor::FromValues<int32_t>(device, {count_}, read.text_counts);
    batch.text = Tensor::FromValues<float>(
        device, {count_, model.text_tokens, model.text_width}, read.text);
  }
  return batch;
}

int64_t BatchReader::skipped() const {
  return loader_ == nullptr ? 0 : loader_->skipped();
}

}  // namespace trireme
