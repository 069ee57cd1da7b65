// The pictures that people look at: what must be in them, where.

#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "models/image/canvas.h"
#include "models/image/heat_map.h"
#include "models/image/image.h"
#include "models/image/label_grid.h"
#include "models/image/line_plot.h"
#include "models/image/tile.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

int CountColor(const Image& image, Color color) {
  int count = 0;
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x) {
      count += std::equal(color.begin(), color.end(), image.At(x, y));
    }
  }
  return count;
}

// Views of a thing in another order would be another thing turning.
TEST(TilePicturesTest, PicturesLieInRowsInTheirOrder) {
  std::vector<Image> pictures;
  for (int i = 0; i < 4; ++i) {
    pictures.push_back(FilledImage(2, 3, 1, static_cast<uint8_t>(10 * i)));
    *pictures.back().At(1, 2) = static_cast<uint8_t>(10 * i + 1);
  }
  const Image tiled = TilePictures(pictures, 2);
  EXPECT_EQ(tiled.width, 4);
  EXPECT_EQ(tiled.height, 6);
  for (int i = 0; i < 4; ++i) {
    const int x = i % 2 * 2, y = i / 2 * 3;
    EXPECT_EQ(*tiled.At(x, y), 10 * i);
    EXPECT_EQ(*tiled.At(x + 1, y + 2), 10 * i + 1);
  }
}

Image Drawn(const std::string& text) {
  Canvas canvas(60, 30);
  canvas.Text(5, 22, text, 16, {0, 0, 0});
  return canvas.ToImage();
}

TEST(TextTest, EveryCharacterLooksDifferent) {
  std::set<std::vector<uint8_t>> pictures;
  for (char character = ' '; character <= '~'; ++character) {
    EXPECT_TRUE(pictures.insert(Drawn(std::string(1, character)).pixels).second)
        << character;
  }
  for (const std::string letter : {"é", "Ж", "Ω"}) {
    EXPECT_TRUE(pictures.insert(Drawn(letter).pixels).second) << letter;
  }
}

// A label with a damaged letter once would have ended all drawing after it.
TEST(TextTest, WhatIsNoUtf8IsSeenAndHidesNothing) {
  const Image replaced = Drawn("\ufffdA");
  EXPECT_NE(replaced, Drawn("A"));
  for (const std::string damaged : {"\xe4", "\xff", "\xc3", "\xc0\xaf"}) {
    EXPECT_NE(Drawn(damaged + "A"), Drawn(damaged)) << "A is not drawn";
  }
  EXPECT_EQ(Drawn("\xe4"
                  "A"),
            replaced);
  // Half of a surrogate pair, and an overlong slash.
  EXPECT_EQ(Drawn("\xed\xa0\x80"), Drawn("\ufffd\ufffd\ufffd"));
  EXPECT_EQ(Drawn("\xc0\xaf"), Drawn("\ufffd\ufffd"));
}

TEST(TextTest, WidthIsWhatIsDrawnAndTheEdgeCuts) {
  EXPECT_EQ(Canvas::TextWidth("", 20), 0);
  EXPECT_NEAR(Canvas::TextWidth("HHHH", 20), 4 * Canvas::TextWidth("H", 20), 2);
  Canvas canvas(8, 8);
  canvas.Text(-30, 5, "long text that leaves on all sides", 30, {0, 0, 0});
  EXPECT_TRUE(IsValid(canvas.ToImage()));
}

TEST(PolylineTest, CoversItsWidth) {
  Canvas canvas(40, 20);
  const Point points[] = {{5, 10}, {20, 10}, {35, 10}};
  canvas.Polyline(points, 4, 1, 0, 20, {0, 0, 0});
  const Image image = canvas.ToImage();
  for (int y = 0; y < 20; ++y) {
    EXPECT_EQ(image.At(20, y)[0], y >= 8 && y < 12 ? 0 : 255) << y;
  }
  EXPECT_EQ(image.At(1, 10)[0], 255);
}

TEST(LabelGridTest, ShowsEveryPictureInItsRow) {
  std::vector<LabelGridRow> rows = {
      {"Shirt", {FilledImage(4, 4, 1, 10), FilledImage(4, 4, 1, 20)}},
      {"Bag", {FilledImage(4, 4, 3, 30)}}};
  const auto grid = DrawLabelGrid(rows, {.title = "title", .magnify = 8});
  ASSERT_TRUE(grid.ok());
  for (const uint8_t value : {10, 20, 30}) {
    EXPECT_EQ(CountColor(*grid, {value, value, value}), 32 * 32) << value;
  }
}

TEST(LabelGridTest, RefusesNothingAndTooMuch) {
  EXPECT_TRUE(absl::IsInvalidArgument(DrawLabelGrid({}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(DrawLabelGrid({{"x", {}}}).status()));
  EXPECT_TRUE(absl::IsResourceExhausted(
      DrawLabelGrid({{"x", {FilledImage(1000, 1000, 1, 0)}}}, {.magnify = 100})
          .status()));
}

TEST(LinePlotTest, ACurveSpansThePlot) {
  LineSeries line{.name = "loss", .x = {}, .y = {}};
  for (int i = 0; i <= 100; ++i) {
    line.x.push_back(i);
    line.y.push_back(1 + std::exp(-0.05 * i));
  }
  const Image plot =
      DrawLinePlot({line}, {.title = "Loss", .x_label = "step"}).value();
  EXPECT_EQ(plot.width, 1200);
  // Columns that hold the line's color, legend aside.
  int columns = 0;
  for (int x = 0; x < plot.width; ++x) {
    bool found = false;
    for (int y = 0; y < plot.height; ++y) {
      const uint8_t* pixel = plot.At(x, y);
      found |= pixel[0] < 60 && pixel[1] > 80 && pixel[2] > 150;
    }
    columns += found;
  }
  EXPECT_GT(columns, 1000);
}

TEST(LinePlotTest, OddValuesAreLeftOut) {
  const double nan = std::nan("");
  const double inf = std::numeric_limits<double>::infinity();
  for (const bool log_y : {false, true}) {
    EXPECT_TRUE(DrawLinePlot({{.name = "",
                               .x = {0, 1, 2, 3, 4, 5},
                               .y = {1, nan, inf, -1, 0, 1e308}}},
                             {.log_y = log_y})
                    .ok());
    EXPECT_TRUE(
        DrawLinePlot({{.name = "", .x = {3}, .y = {5}}}, {.log_y = log_y})
            .ok());
    EXPECT_TRUE(DrawLinePlot({{.name = "", .x = {0, 1}, .y = {1e-200, 1e200}}},
                             {.log_y = log_y})
                    .ok());
    EXPECT_TRUE(DrawLinePlot({{.name = "", .x = {0, 1}, .y = {0.51, 0.52}}},
                             {.log_y = log_y})
                    .ok());
  }
  EXPECT_TRUE(absl::IsInvalidArgument(
      DrawLinePlot({{.name = "", .x = {0}, .y = {nan}}}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      DrawLinePlot({{.name = "", .x = {0, 1}, .y = {1}}}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(DrawLinePlot({}).status()));
}

TEST(HeatMapTest, EqualSharesHaveOneColourAndHigherOnesADarker) {
  const auto colours = [](const std::vector<double>& values) {
    const absl::StatusOr<Image> image =
        DrawHeatMaps({{.name = "layer", .columns = 2, .values = values}});
    EXPECT_TRUE(image.ok()) << image.status();
    // The darkest is that of the highest share.
    return std::pair(CountColor(*image, {3, 51, 112}),
                     CountColor(*image, {239, 243, 250}));
  };
  const auto [two, none] = colours({0.5, 0.5, 0.25, 0});
  const auto [all, no_light] = colours({0.5, 0.5, 0.5, 0.5});
  // Beside the scale's, cells of 16 x 16.
  EXPECT_EQ(all - two, 2 * 16 * 16);
  EXPECT_EQ(none - no_light, 16 * 16);
}

TEST(HeatMapTest, RefusesWhatIsNoTable) {
  EXPECT_TRUE(absl::IsInvalidArgument(DrawHeatMaps({}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      DrawHeatMaps({{.columns = 2, .values = {1, 2, 3}}}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      DrawHeatMaps({{.columns = 0, .values = {}}}).status()));
}

TEST(LinePlotTest, MovingAverageLiesOnACurveThatFalls) {
  const std::vector<double> values = {8, 6, 4, 2};
  EXPECT_EQ(MovingAverage(values, 3), (std::vector<double>{7, 6, 4, 3}));
  EXPECT_EQ(MovingAverage(values, 2), (std::vector<double>{7, 5, 3, 2}));
  EXPECT_EQ(MovingAverage(values, 1), values);
}

}  // namespace
}  // namespace trireme
