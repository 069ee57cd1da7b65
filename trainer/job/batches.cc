#include "trainer/job/batches.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>

#include "models/data/bucketed_dataset.h"
#include "models/data/held_out.h"
#include "models/data/idx.h"
#include "models/data/image_folder.h"
#include "models/data/shape_dataset.h"
#include "models/data/webdataset.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "trainer/config/local_path.h"
#include "trainer/job/data_config.h"

namespace trireme {
namespace {

// The field that says where the data are.
std::string_view FieldOfPath(const Data& data) {
  switch (data.source_case()) {
    case Data::kIdx:
      return "data.idx.folder";
    case Data::kImageFolder:
      return "data.image_folder.path";
    case Data::kWebdataset:
      return "data.webdataset.paths";
    case Data::kLatents:
      return "data.latents.path";
    case Data::kShapes:
      return "data.shapes.path";
    case Data::SOURCE_NOT_SET:
      break;
  }
  return "data";
}

absl::StatusOr<std::unique_ptr<Dataset>> OpenSource(const Data& data) {
  switch (data.source_case()) {
    case Data::kIdx: {
      const Idx& idx = data.idx();
      ASSIGN_OR_RETURN(const std::string folder, LocalPath(idx.folder()));
      return OpenIdx(folder, idx.split(),
                     {idx.class_names().begin(), idx.class_names().end()});
    }
    case Data::kImageFolder: {
      ASSIGN_OR_RETURN(const std::string path,
                       LocalPath(data.image_folder().path()));
      return OpenImageFolder(path);
    }
    case Data::kWebdataset: {
      const WebDataset& source = data.webdataset();
      WebDatasetOptions options;
      for (const std::string& given : source.paths()) {
        ASSIGN_OR_RETURN(options.paths.emplace_back(), LocalPath(given));
      }
      options.num_classes = static_cast<int32_t>(source.classes());
      return OpenWebDataset(options);
    }
    case Data::kLatents: {
      WebDatasetOptions options;
      ASSIGN_OR_RETURN(options.paths.emplace_back(),
                       LocalPath(data.latents().path()));
      options.latents = LatentFormatOf(data);
      return OpenWebDataset(options);
    }
    case Data::kShapes: {
      const Shapes& shapes = data.shapes();
      ASSIGN_OR_RETURN(const std::string folder, LocalPath(shapes.path()));
      ShapeDatasetOptions options = {.folder = folder,
                                     .grids = shapes.grids(),
                                     .resolution = shapes.resolution(),
                                     .volume = VolumeShapeOf(shapes),
                                     .voxels = VoxelShapeOf(shapes)};
      options.views = static_cast<int>(shapes.views().count());
      options.view_resolution = static_cast<int>(shapes.views().resolution());
      if (shapes.has_sequences()) {
        options.sequences = {.format = MeshFormatOf(shapes.sequences()),
                             .most_tokens = shapes.sequences().tokens()};
      }
      return OpenShapeDataset(options);
    }
    case Data::SOURCE_NOT_SET:
      break;
  }
  return InvalidArgument(
      "data: found no source, expected one of idx, image_folder, webdataset, "
      "shapes, latents");
}

absl::StatusOr<std::unique_ptr<Dataset>> OpenWhole(const Data& data) {
  absl::StatusOr<std::unique_ptr<Dataset>> dataset = OpenSource(data);
  // What is wrong within the data is no matter of the field.
  if (!absl::IsNotFound(dataset.status())) return dataset;
  return WithContext(dataset.status(), FieldOfPath(data));
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

SmallerPictures SmallerOf(const PictureBuckets& buckets) {
  switch (buckets.smaller()) {
    case PictureBuckets::LEAVE_OUT:
      return SmallerPictures::kLeaveOut;
    case PictureBuckets::ENLARGE:
      return SmallerPictures::kEnlarge;
    default:
      return SmallerPictures::kRefuse;
  }
}

// Where the job has them.
absl::StatusOr<std::unique_ptr<Dataset>> InBuckets(
    const Data& data, std::unique_ptr<Dataset> dataset) {
  if (!data.has_buckets()) return dataset;
  return PutIntoBuckets(std::move(dataset), SizesOf(data),
                        SmallerOf(data.buckets()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Dataset>> OpenDataset(const Data& data) {
  ASSIGN_OR_RETURN(std::unique_ptr<Dataset> dataset,
                   data.held_out() > 0 ? OpenShare(data, Share::kTraining)
                                       : OpenWhole(data));
  return InBuckets(data, std::move(dataset));
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

absl::StatusOr<std::unique_ptr<Dataset>> OpenValidationSamples(Job& job) {
  constexpr int64_t kMostByDefault = 256;
  ASSIGN_OR_RETURN(std::unique_ptr<Dataset> dataset, OpenHeldOut(job.data()));
  if (dataset == nullptr) {
    return InvalidArgument(
        "validation: found no samples that are held out, expected "
        "data.held_out, or the test split of an IDX set");
  }
  absl::StatusOr<std::unique_ptr<Dataset>> sized =
      InBuckets(job.data(), std::move(dataset));
  RETURN_IF_ERROR(WithContext(sized.status(), "samples that are held out"));
  dataset = *std::move(sized);
  ValidationConfig& validation = *job.mutable_validation();
  if (!validation.has_samples()) {
    validation.set_samples(
        static_cast<uint32_t>(std::min(dataset->size(), kMostByDefault)));
  }
  if (validation.samples() < 1 || validation.samples() > dataset->size()) {
    return InvalidArgument(
        "validation.samples: found {}, expected 1 to the {} that are held out",
        validation.samples(), dataset->size());
  }
  return dataset;
}

BatchReader::BatchReader(const Dataset& dataset, const LoaderOptions& options,
                         UnreadableExchange exchange)
    : options_(options),
      exchange_(std::move(exchange)),
      loader_(dataset, options) {}

absl::StatusOr<Batch> BatchReader::Read(Device& device, int64_t step,
                                        uint64_t position) {
  if (position != next_position_) loader_.Seek(position);
  next_position_ = position + options_.global_batch;
  absl::StatusOr<LoadedBatch> loaded = loader_.Next();
  // A rank that has failed tells what it could not read all the same: others
  // wait for that.
  while (exchange_ != nullptr) {
    const std::vector<int64_t> unreadable = exchange_(loader_.TakeUnreadable());
    if (unreadable.empty()) break;
    if (!loaded.ok()) continue;
    const absl::Status replaced = loader_.Replace(unreadable, *loaded);
    if (!replaced.ok()) loaded = replaced;
  }
  RETURN_IF_ERROR(loaded.status());
  LoadedBatch read = *std::move(loaded);
  Batch batch;
  batch.step = step;
  batch.samples = std::move(read.positions);
  batch.bucket = read.bucket;
  const std::vector<FieldSpec>& fields = loader_.fields(read.bucket);
  for (size_t f = 0; f < fields.size(); ++f) {
    const FieldSpec& spec = fields[f];
    batch.fields[spec.name].values = std::visit(
        [&]<typename T>(const std::vector<T>& values) {
          return Tensor::FromValues<T>(device, spec.ShapeOf(options_.count),
                                       values, MemoryCategory::kActivations,
                                       "batch");
        },
        read.fields[f]);
  }
  consumed_ = std::move(read.indices);
  return batch;
}

void BatchReader::Rewind() {
  next_position_ = 0;
  loader_.Seek(next_position_);
}

UnreadableExchange ExchangeOver(Control& control) {
  return [&control](const std::vector<int64_t>& own) {
    auto most = static_cast<int64_t>(own.size());
    control.Max(std::span(&most, 1), "unreadable samples");
    std::vector<int64_t> found;
    if (most == 0) return found;
    // Every rank fills slots of its own.
    std::vector<int64_t> slots(most * control.size(), -1);
    std::copy(own.begin(), own.end(), slots.begin() + most * control.rank());
    control.Max(std::span(slots), "unreadable samples");
    std::copy_if(slots.begin(), slots.end(), std::back_inserter(found),
                 [](int64_t index) { return index >= 0; });
    return found;
  };
}

}  // namespace trireme
