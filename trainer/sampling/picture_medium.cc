#include "trainer/sampling/picture_medium.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>
#include <variant>

#include "fmt/format.h"
#include "models/data/field_readers.h"
#include "models/image/encode.h"
#include "models/image/label_grid.h"
#include "models/metrics/nearest_neighbor.h"
#include "models/metrics/sliced_wasserstein.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr char kFormatKey[] = "format";
constexpr char kStoredFormat[] = "trireme.samples";
constexpr char kStoredTensor[] = "samples";
// Training pictures that say which class a drawn one shows.
constexpr int kNeighbors = 3;

std::string StoredPath(const std::string& path) {
  return std::filesystem::path(path).replace_extension(".safetensors");
}

// Real pictures and their labels, as the network sees them.
struct RealPictures {
  std::vector<float> pixels;
  std::vector<int32_t> labels;
};

absl::StatusOr<RealPictures> ReadReal(const Dataset& dataset,
                                      const FieldSpec& spec, int64_t skip,
                                      int64_t count) {
  RealPictures real;
  const FieldReader& reader = ReaderOf(spec);
  FieldValues picture = ZeroValues(spec, 1);
  RETURN_IF_ERROR(TakeReal(
      dataset, reader.parts, skip, count, count, "pictures",
      [&](const Sample& sample) -> absl::Status {
        RETURN_IF_ERROR(reader.read(sample, spec, 0, picture));
        const auto& pixels = std::get<std::vector<float>>(picture);
        real.pixels.insert(real.pixels.end(), pixels.begin(), pixels.end());
        real.labels.push_back(sample.class_id);
        return absl::OkStatus();
      }));
  return real;
}

}  // namespace

absl::Status PictureMedium::CheckFiles(const std::string& path,
                                       bool overwrite) const {
  RETURN_IF_ERROR(CheckReplaces(path, overwrite));
  std::error_code error;
  const std::string stored = StoredPath(path);
  if (to_stored_ == nullptr || overwrite ||
      !std::filesystem::exists(stored, error)) {
    return absl::OkStatus();
  }
  const auto file = SafetensorsFile::Open(stored);
  if (file.ok() && (*file)->metadata().contains(kFormatKey) &&
      (*file)->metadata().at(kFormatKey) == kStoredFormat) {
    return absl::OkStatus();
  }
  return FailedPrecondition(
      "{}: found a file that this program did not write where drawn samples "
      "are "
      "to go; expected another name for the picture, or --overwrite",
      stored);
}

std::string PictureMedium::FilesOf(const std::string& path) const {
  return to_stored_ == nullptr
             ? path
             : fmt::format("{}, latents in {}", path, StoredPath(path));
}

absl::Status PictureMedium::Write(const std::string& path,
                                  const DrawnRows& rows) const {
  const int64_t elements = spec_.shape.num_elements();
  std::vector<LabelGridRow> grid;
  for (size_t row = 0; row < rows.names.size(); ++row) {
    grid.push_back({rows.names[row], {}});
    for (int64_t i = 0; i < rows.per_row; ++i) {
      if (rows.Stops()) {
        return absl::CancelledError("stopped while samples were written");
      }
      const int64_t at = static_cast<int64_t>(row) * rows.per_row + i;
      ASSIGN_OR_RETURN(Image image, to_image_(rows.samples.subspan(
                                        at * elements, elements)));
      grid.back().images.push_back(std::move(image));
    }
  }
  if (to_stored_ != nullptr) RETURN_IF_ERROR(Store(path, rows));
  ASSIGN_OR_RETURN(const Image picture, DrawLabelGrid(grid, {}));
  return WritePng(path, picture);
}

absl::Status PictureMedium::Store(const std::string& path,
                                  const DrawnRows& rows) const {
  const Shape& shape = spec_.shape;
  const int64_t elements = shape.num_elements();
  const auto count = static_cast<int64_t>(rows.samples.size()) / elements;
  ASSIGN_OR_RETURN(const auto writer,
                   SafetensorsWriter::Create(
                       StoredPath(path),
                       {{kStoredTensor,
                         DType::kFloat32,
                         {count, shape.dim(0), shape.dim(1), shape.dim(2)}}},
                       {{kFormatKey, kStoredFormat}}));
  for (int64_t i = 0; i < count; ++i) {
    const std::vector<float> sample =
        to_stored_(rows.samples.subspan(i * elements, elements));
    RETURN_IF_ERROR(
        writer->Append(kStoredTensor, sample.data(),
                       static_cast<int64_t>(sample.size() * sizeof(float))));
  }
  return writer->Commit().status();
}

absl::StatusOr<std::string> PictureMedium::Compare(
    const std::vector<Sample>& prompts, std::span<const float> samples,
    const RealSets& real) const {
  const int64_t elements = spec_.shape.num_elements();
  const auto count = static_cast<int64_t>(prompts.size());
  ASSIGN_OR_RETURN(const RealPictures train,
                   ReadReal(real.training, spec_, 0, count));
  // Without a held-out set: training pictures that are not among `train`.
  const bool held_out = real.held_out != nullptr;
  ASSIGN_OR_RETURN(const RealPictures test,
                   held_out ? ReadReal(*real.held_out, spec_, 0, count)
                            : ReadReal(real.training, spec_, count, count));
  ASSIGN_OR_RETURN(const double distance,
                   SlicedWasserstein(samples, test.pixels, elements));
  ASSIGN_OR_RETURN(const double floor,
                   SlicedWasserstein(train.pixels, test.pixels, elements));
  std::string text = fmt::format(
      "sliced Wasserstein distance to {} {} pictures: {:.3f} (training "
      "pictures to the same: {:.3f})\n",
      count, held_out ? "held-out" : "training", distance, floor);
  if (!held_out) {
    text +=
        "these were trained on, as the job holds none out (data.held_out)\n";
  }
  // Of a caption the class is that of the sample it was read from.
  std::vector<int32_t> labels;
  for (const Sample& prompt : prompts) labels.push_back(prompt.class_id);
  if (real.training.num_classes() < 2 || count < kNeighbors ||
      std::find(labels.begin(), labels.end(), -1) != labels.end()) {
    return text;
  }
  ASSIGN_OR_RETURN(
      const double accuracy,
      NearestNeighborAccuracy({train.pixels, train.labels}, {samples, labels},
                              elements, kNeighbors));
  return text + fmt::format(
                    "{} nearest training pictures agree with the class asked "
                    "for: {:.0f} %\n",
                    kNeighbors, 100 * accuracy);
}

}  // namespace trireme
