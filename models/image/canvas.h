// Drawing for pictures that people look at: rectangles, smooth lines, text and
// other pictures, by Cairo. What falls outside the canvas is cut off.
// Coordinates are pixels from the top left corner. Any thread; one writer per
// canvas.

#ifndef TRIREME_MODELS_IMAGE_CANVAS_H_
#define TRIREME_MODELS_IMAGE_CANVAS_H_

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "models/image/image.h"

namespace trireme {

using Color = std::array<uint8_t, 3>;

struct Point {
  double x;
  double y;
};

// Where a text's anchor lies along it.
enum class TextAlign { kLeft, kCenter, kRight };

class Canvas {
 public:
  // The width of a text of `size` pixels, and what a line of it takes above
  // its base line and below.
  static double TextWidth(std::string_view text, double size);
  static double Ascent(double size);
  static double Descent(double size);

  // A white one. Width and height are positive and at most 32767 (CHECKed).
  Canvas(int width, int height);

  int width() const;
  int height() const;

  void Rectangle(double x, double y, double width, double height, Color color);

  // UTF-8; what is none shows as replacement characters. `baseline` is the y of
  // the letters' feet.
  void Text(double x, double baseline, std::string_view text, double size,
            Color color, TextAlign align = TextAlign::kLeft);

  // A connected line through `points`, `width` pixels wide, mixed with what is
  // there by `opacity` in [0, 1], and shown in rows [top, bottom) only. A
  // single point is a dot.
  void Polyline(std::span<const Point> points, double width, double opacity,
                double top, double bottom, Color color);

  // Copies a gray or RGB picture to (x, y), each of its pixels a square of
  // `magnify` × `magnify`.
  void Picture(int x, int y, const Image& picture, int magnify = 1);

  // What was drawn, as RGB.
  Image ToImage() const;

 private:
  struct Surface;
  std::shared_ptr<Surface> surface_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_IMAGE_CANVAS_H_
