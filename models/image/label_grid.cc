#include "models/image/label_grid.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "models/image/canvas.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr Color kInk = {32, 33, 36};
constexpr int kMargin = 16;
constexpr int kGap = 4;
constexpr double kTextSize = 18;
constexpr int kCellSide = 80;
constexpr int64_t kMaxPixels = int64_t{1} << 28;
constexpr int64_t kMaxSide = 32767;

int WidthOf(const std::string& text) {
  return static_cast<int>(std::ceil(Canvas::TextWidth(text, kTextSize)));
}

}  // namespace

absl::StatusOr<Image> DrawLabelGrid(const std::vector<LabelGridRow>& rows,
                                    const LabelGridOptions& options) {
  CHECK_GE(options.magnify, 0);
  int64_t columns = 0;
  int picture_width = 0;
  int picture_height = 0;
  int names_width = 0;
  for (const LabelGridRow& row : rows) {
    columns = std::max(columns, static_cast<int64_t>(row.images.size()));
    names_width = std::max(names_width, WidthOf(row.name));
    for (const Image& image : row.images) {
      CHECK(IsValid(image));
      picture_width = std::max(picture_width, image.width);
      picture_height = std::max(picture_height, image.height);
    }
  }
  if (columns == 0) return InvalidArgument("a grid without a picture");

  const int magnify =
      options.magnify > 0
          ? options.magnify
          : std::max(1, (kCellSide + picture_width / 2) / picture_width);
  const int64_t cell_width = int64_t{magnify} * picture_width;
  const int64_t cell_height = int64_t{magnify} * picture_height;
  const double ascent = Canvas::Ascent(kTextSize);
  const double text_height = ascent + Canvas::Descent(kTextSize);
  const int64_t row_height = std::max<int64_t>(
      cell_height, static_cast<int64_t>(std::ceil(text_height)));
  const int left = kMargin + (names_width > 0 ? names_width + kMargin : 0);
  const int top = options.title.empty()
                      ? kMargin
                      : 2 * kMargin + static_cast<int>(std::ceil(text_height));
  const int64_t width =
      std::max<int64_t>(left + columns * (cell_width + kGap) - kGap,
                        kMargin + WidthOf(options.title)) +
      kMargin;
  const int64_t height =
      top + static_cast<int64_t>(rows.size()) * (row_height + kGap) - kGap +
      kMargin;
  if (width > kMaxPixels / height || std::max(width, height) > kMaxSide) {
    return ResourceExhausted(
        "a grid of {}x{} pixels, expected at most {} and sides of at most {}",
        width, height, kMaxPixels, kMaxSide);
  }

  Canvas canvas(static_cast<int>(width), static_cast<int>(height));
  canvas.Text(kMargin, kMargin + ascent, options.title, kTextSize, kInk);
  int64_t y = top;
  for (const LabelGridRow& row : rows) {
    canvas.Text(left - kMargin, y + (row_height - text_height) / 2 + ascent,
                row.name, kTextSize, kInk, TextAlign::kRight);
    int64_t x = left;
    for (const Image& image : row.images) {
      canvas.Picture(static_cast<int>(x), static_cast<int>(y), image, magnify);
      x += cell_width + kGap;
    }
    y += row_height + kGap;
  }
  return canvas.ToImage();
}

}  // namespace trireme
