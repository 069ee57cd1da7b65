#include "models/image/label_grid.h"

#include <algorithm>
#include <cstdint>

#include "models/image/canvas.h"
#include "models/image/resize.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr Color kInk = {32, 33, 36};
constexpr int kMargin = 16;
constexpr int kGap = 4;
constexpr int kTextScale = 2;
constexpr int kCellSide = 80;
constexpr int64_t kMaxPixels = int64_t{1} << 28;

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
    names_width = std::max(names_width, TextWidth(row.name, kTextScale));
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
  const int row_height = static_cast<int>(
      std::max<int64_t>(cell_height, kTextScale * kGlyphHeight));
  const int left = kMargin + (names_width > 0 ? names_width + kMargin : 0);
  const int top =
      options.title.empty() ? kMargin : 2 * kMargin + kTextScale * kGlyphHeight;
  const int64_t width =
      std::max<int64_t>(left + columns * (cell_width + kGap) - kGap,
                        kMargin + TextWidth(options.title, kTextScale)) +
      kMargin;
  const int64_t height =
      top + static_cast<int64_t>(rows.size()) * (row_height + kGap) - kGap +
      kMargin;
  if (width > kMaxPixels / height) {
    return ResourceExhausted("a grid of {}x{} pixels, expected at most {}",
                             width, height, kMaxPixels);
  }

  Image grid =
      FilledImage(static_cast<int>(width), static_cast<int>(height), 3, 255);
  DrawText(grid, kMargin, kMargin, options.title, kTextScale, kInk);
  int y = top;
  for (const LabelGridRow& row : rows) {
    const int text_y = y + (row_height - kTextScale * kCapitalHeight) / 2;
    DrawText(grid, left - kMargin - TextWidth(row.name, kTextScale), text_y,
             row.name, kTextScale, kInk);
    int x = left;
    for (const Image& image : row.images) {
      DrawImage(grid, x, y, Magnify(image, magnify));
      x += static_cast<int>(cell_width) + kGap;
    }
    y += row_height + kGap;
  }
  return grid;
}

}  // namespace trireme
